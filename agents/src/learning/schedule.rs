//! Learning rate over a run of steps: a warm-up, then one of four shapes, as in Hugging Face transformers.
//!
//! One difference: the first step of a warm-up has a rate above zero, so that no step is wasted.

use serde::{Deserialize, Serialize};

/// What the rate does after the warm-up, as shares of the peak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Shape {
    /// Stays at the peak.
    Constant,
    /// Falls on a line.
    Linear {
        /// Share at the end.
        floor: f64,
    },
    /// Falls on half a cosine.
    Cosine {
        /// Share at the end.
        floor: f64,
    },
    /// Falls with the root of the step; never ends.
    InverseSquareRoot,
}

impl Default for Shape {
    /// A cosine to a tenth.
    fn default() -> Self {
        Self::Cosine { floor: 0.1 }
    }
}

/// How long the rate rises from zero to the peak on a line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmUp {
    /// A number of steps.
    Steps(usize),
    /// A share of all steps, from 0 to 1, rounded up.
    Share(f64),
}

impl Default for WarmUp {
    /// A tenth.
    fn default() -> Self {
        Self::Share(0.1)
    }
}

/// The rate of every step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Length of the rise.
    #[serde(default)]
    pub warm_up: WarmUp,
    /// Steps in all.
    pub steps: usize,
    /// What comes after the rise.
    #[serde(default)]
    pub shape: Shape,
}

impl Schedule {
    /// The rate of a step, counted from 0; after the last step it stays.
    ///
    /// ```
    /// use agents::learning::schedule::{Schedule, Shape, WarmUp};
    /// let warm_up = WarmUp::Steps(2);
    /// let schedule = Schedule { peak: 1.0, warm_up, steps: 10, shape: Shape::default() };
    /// assert!((schedule.rate(0) - 0.5).abs() < 1e-9);
    /// assert!((schedule.rate(2) - 1.0).abs() < 1e-9);
    /// assert!(schedule.rate(9) < 0.2);
    /// let flat = Schedule { shape: Shape::Constant, ..schedule };
    /// assert!((flat.rate(9) - 1.0).abs() < 1e-9);
    /// ```
    #[must_use]
    pub fn rate(&self, step: usize) -> f64 {
        let warm_up = self.warm_up_steps();
        if step < warm_up {
            return self.peak * (step + 1) as f64 / warm_up as f64;
        }
        let span = self.steps.saturating_sub(warm_up).max(1) as f64;
        let along = ((step - warm_up) as f64 / span).min(1.0);
        let above = |floor: f64, share: f64| floor + (1.0 - floor) * share;
        let share = match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear { floor } => above(floor, 1.0 - along),
            Shape::Cosine { floor } => {
                above(floor, 0.5 * (1.0 + (std::f64::consts::PI * along).cos()))
            }
            Shape::InverseSquareRoot => {
                let scale = warm_up.max(1) as f64;
                (scale / (scale + (step - warm_up) as f64)).sqrt()
            }
        };
        self.peak * share
    }

    fn warm_up_steps(&self) -> usize {
        match self.warm_up {
            WarmUp::Steps(steps) => steps,
            WarmUp::Share(share) => (share * self.steps as f64).ceil() as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `get_*_schedule` of transformers 5.24 with 3 steps of warm-up of 10, multipliers of steps 3 to 10.
    #[test]
    fn shapes_are_those_of_transformers() {
        let linear = [
            1.0,
            0.857142857,
            0.714285714,
            0.571428571,
            0.428571429,
            0.285714286,
            0.142857143,
            0.0,
        ];
        let cosine = [
            1.0,
            0.950484434,
            0.811744901,
            0.611260467,
            0.388739533,
            0.188255099,
            0.049515566,
            0.0,
        ];
        let root = [
            1.0,
            0.866025404,
            0.774596669,
            std::f64::consts::FRAC_1_SQRT_2,
            0.654653671,
            0.612372436,
            0.577350269,
            0.547722558,
        ];
        for (shape, expected) in [
            (Shape::Constant, [1.0; 8]),
            (Shape::Linear { floor: 0.0 }, linear),
            (Shape::Cosine { floor: 0.0 }, cosine),
            (Shape::InverseSquareRoot, root),
        ] {
            let schedule = Schedule { peak: 1.0, warm_up: WarmUp::Steps(3), steps: 10, shape };
            // transformers' warm-up, whose step 0 has rate 0, one step later.
            let warm = [1.0 / 3.0, 2.0 / 3.0, 1.0];
            for (step, rate) in warm.iter().enumerate() {
                assert!((schedule.rate(step) - rate).abs() < 1e-8);
            }
            for (index, rate) in expected.iter().enumerate() {
                assert!((schedule.rate(index + 3) - rate).abs() < 1e-8, "{shape:?} {index}");
            }
        }
    }

    #[test]
    fn a_share_of_the_steps_is_a_number_of_steps() {
        let schedule: Schedule =
            serde_json::from_str(r#"{"peak": 1.0, "steps": 20, "warm_up": {"share": 0.25}}"#)
                .unwrap();
        let counted = Schedule { warm_up: WarmUp::Steps(5), ..schedule };
        assert!((0..25).all(|step| schedule.rate(step).to_bits() == counted.rate(step).to_bits()));
    }
}
