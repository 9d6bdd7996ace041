//! How hasty people type: dropped capitals and punctuation, slips of the finger, short forms.

use agents::seed::Stream;
use rand::Rng;

const SHORT_FORMS: [(&str, &str); 12] = [
    ("you", "u"),
    ("your", "ur"),
    ("please", "pls"),
    ("thanks", "thx"),
    ("are", "r"),
    ("because", "bc"),
    ("tomorrow", "tmrw"),
    ("message", "msg"),
    ("and", "n"),
    ("order", "ordr"),
    ("what", "wat"),
    ("i am", "im"),
];

/// The text as somebody in a hurry would type it.
#[must_use]
pub fn hasty(text: &str, stream: &mut Stream) -> String {
    let lower = stream.random_bool(0.6);
    let bare = stream.random_bool(0.5);
    let slips = [0.0, 0.03, 0.08][stream.random_range(0..3)];
    let words: Vec<String> =
        text.split(' ').map(|word| hasty_word(word, lower, bare, slips, stream)).collect();
    words.join(" ")
}

fn hasty_word(word: &str, lower: bool, bare: bool, slips: f64, stream: &mut Stream) -> String {
    let mut word = if lower { word.to_lowercase() } else { word.to_owned() };
    if bare {
        word.retain(|c| !matches!(c, '.' | ',' | '!' | '?' | '\''));
    }
    if let Some((_, short)) = SHORT_FORMS.iter().find(|(long, _)| *long == word)
        && stream.random_bool(0.2)
    {
        return (*short).to_owned();
    }
    let letters: Vec<char> = word.chars().collect();
    if letters.len() > 3 && stream.random_bool(slips) {
        return slip(letters, stream);
    }
    word
}

/// One slip: a swapped, missing or doubled letter inside the word.
fn slip(mut letters: Vec<char>, stream: &mut Stream) -> String {
    let at = stream.random_range(1..letters.len() - 1);
    match stream.random_range(0..3) {
        0 => letters.swap(at, at + 1),
        1 => {
            letters.remove(at);
        }
        _ => letters.insert(at, letters[at]),
    }
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use agents::seed::Seed;

    use super::*;

    #[test]
    fn hasty_text_stays_recognisable() {
        let text = "Where is my parcel, please? It was promised for Monday.";
        let mut changed = 0;
        for index in 0..100 {
            let typed = hasty(text, &mut Seed::new(3).index(index).stream());
            assert_eq!(typed.split(' ').count(), text.split(' ').count());
            changed += usize::from(typed != text);
        }
        assert!(changed > 70, "only {changed} of 100 differ");
    }
}
