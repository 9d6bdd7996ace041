//! Area under the ROC curve: the chance that a positive scores above a negative, ties counting half
//! (the Mann-Whitney statistic; Fawcett 2006).

/// The area, from scores with their truth; `NaN` where one of the two kinds is missing.
///
/// ```
/// assert_eq!(sim::metric::auc::auc(&[(0.9, true), (0.2, false), (0.5, true), (0.5, false)]), 0.875);
/// ```
#[must_use]
pub fn auc(scored: &[(f64, bool)]) -> f64 {
    let mut sorted: Vec<(f64, bool)> = scored.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = sorted.iter().filter(|(_, truth)| *truth).count() as f64;
    let negatives = sorted.len() as f64 - positives;
    let mut rank_sum = 0.0;
    let mut start = 0;
    while start < sorted.len() {
        let tied = sorted[start..].iter().take_while(|(s, _)| *s == sorted[start].0).count();
        // Ranks count from 1; tied scores share their mean rank.
        let rank = start as f64 + (tied as f64 + 1.0) / 2.0;
        let hits = sorted[start..start + tied].iter().filter(|(_, truth)| *truth).count();
        rank_sum += rank * hits as f64;
        start += tied;
    }
    (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

#[cfg(test)]
mod tests {
    use super::auc;

    // The same as sklearn.metrics.roc_auc_score on these eight values.
    #[test]
    fn equals_scikit_learn() {
        let scores = [0.1, 0.4, 0.35, 0.8, 0.35, 0.9, 0.2, 0.7];
        let truth = [false, false, true, true, false, true, true, false];
        let scored: Vec<_> = scores.into_iter().zip(truth).collect();
        assert!((auc(&scored) - 0.65625).abs() < 1e-12);
    }

    #[test]
    fn one_kind_only_is_undefined() {
        assert!(auc(&[(0.5, true)]).is_nan());
    }
}
