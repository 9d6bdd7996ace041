//! Mean with a confidence interval, for a handful of independent runs (Student 1908).

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean and half-width of the 95 % interval; the half-width is `NaN` for fewer than two values.
///
/// ```
/// let (mean, half) = sim::metric::interval::mean_interval(&[1.0, 2.0, 3.0]);
/// assert!((mean - 2.0).abs() < 1e-12 && (half - 2.4841).abs() < 1e-3);
/// ```
#[must_use]
pub fn mean_interval(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0);
    let half = match StudentsT::new(0.0, 1.0, count - 1.0) {
        Ok(student) if count > 1.0 => student.inverse_cdf(0.975) * (variance / count).sqrt(),
        _ => f64::NAN,
    };
    (mean, half)
}
