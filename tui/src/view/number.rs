//! Numbers as people read them.

/// `12,345`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 turn`, `2 turns`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

/// `87%`; `?` for what is no number.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.0}%", share * 100.0) } else { "?".to_owned() }
}

/// `0.412`, or `-` where there is none.
pub(crate) fn loss(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            (counted(1, "turn"), counted(1_500, "turn")),
            ("1 turn".into(), "1,500 turns".into())
        );
        assert_eq!((percent(0.876), percent(f64::NAN)), ("88%".into(), "?".into()));
        assert_eq!((loss(Some(0.4)), loss(None)), ("0.400".into(), "-".into()));
    }
}
