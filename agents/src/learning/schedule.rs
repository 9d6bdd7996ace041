//! Learning rate over a run of steps.

/// Linear warm-up to a peak, then a cosine down to a tenth of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Highest rate.
    pub peak: f64,
    /// Steps of warm-up.
    pub warm_up: usize,
    /// Steps in all.
    pub steps: usize,
}

impl Schedule {
    /// The rate of a step, counted from 0.
    ///
    /// ```
    /// let schedule = agents::learning::schedule::Schedule { peak: 1.0, warm_up: 2, steps: 10 };
    /// assert!((schedule.rate(0) - 0.5).abs() < 1e-9);
    /// assert!((schedule.rate(2) - 1.0).abs() < 1e-9);
    /// assert!(schedule.rate(9) < 0.2);
    /// ```
    #[must_use]
    pub fn rate(&self, step: usize) -> f64 {
        if step < self.warm_up {
            return self.peak * (step + 1) as f64 / self.warm_up as f64;
        }
        let span = self.steps.saturating_sub(self.warm_up).max(1) as f64;
        let along = ((step - self.warm_up) as f64 / span).min(1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * along).cos());
        self.peak * (0.1 + 0.9 * cosine)
    }
}
