//! Tokens that are read before anybody here has seen them.

use super::*;
use crate::sampler::Filter;

const STEPS: usize = 6;

/// What five sequences draw step after step, each token given to the next step by number, or by its draw.
pub(super) fn drawn_texts(mut session: Session, is_sampled: bool, is_told: bool) -> Vec<Vec<u32>> {
    let filter = Filter { top_p: Some(0.95), ..Filter::default() };
    let temperature = if is_sampled { 1.5 } else { 0.0 };
    let mut streams: Vec<_> = (0..5).map(|i| Seed::new(i).stream()).collect();
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| text(3 + 4 * i, i)).collect();
    let slots: Vec<Slot> = prompts.iter().map(|_| session.open(None)).collect();
    let mut texts = vec![Vec::new(); 5];
    let mut drawn: Option<Drawn> = None;
    let mut seen: Vec<u32> = Vec::new();
    for _ in 0..STEPS {
        let part = |i: usize| match &drawn {
            None => Part::new(slots[i], &prompts[i], true),
            Some(_) if is_told => Part::new(slots[i], std::slice::from_ref(&seen[i]), true),
            // The draws of the last step are in the turned order of its parts.
            Some(drawn) => Part::drawn(slots[i], drawn, 4 - i),
        };
        let parts: Vec<Part<'_>> = (0..5).map(part).collect();
        assert_eq!(parts[1].count(), if drawn.is_some() { 1 } else { 7 });
        let logits = session.step(&parts).unwrap();
        let picks = streams.iter_mut().enumerate().rev();
        let picks = picks.map(|(part, stream)| Pick { part, temperature, filter: &filter, stream });
        let new = logits.draw(picks.collect()).unwrap();
        assert_eq!((new.len(), new.is_empty()), (5, false));
        seen = new.wait().unwrap();
        seen.reverse();
        texts.iter_mut().zip(&seen).for_each(|(text, &token)| text.push(token));
        drawn = Some(new);
    }
    texts
}

#[test]
fn a_drawn_token_is_read_where_it_lies() {
    let backbone = backbone("llama");
    for is_sampled in [false, true] {
        let expected = drawn_texts(Session::new(Arc::clone(&backbone)).unwrap(), is_sampled, true);
        let different: std::collections::BTreeSet<_> = expected.iter().flatten().collect();
        assert!(different.len() > STEPS, "{expected:?}");
        for session in sessions(&backbone) {
            assert_eq!(drawn_texts(session.late(), is_sampled, false), expected);
        }
        for session in sessions(&backbone) {
            assert_eq!(drawn_texts(session, is_sampled, false), expected);
        }
    }
}

#[test]
fn draws_of_several_steps_and_tokens_from_here_are_read_side_by_side() {
    let backbone = backbone("llama");
    let filter = Filter::default();
    let greedy = |logits: &Logits, parts: &[usize]| {
        let mut streams: Vec<_> = parts.iter().map(|_| Seed::new(0).stream()).collect();
        let picks = parts.iter().zip(&mut streams);
        let pick = |(&part, stream)| Pick { part, temperature: 0.0, filter: &filter, stream };
        logits.draw(picks.map(pick).collect()).unwrap()
    };
    for session in sessions(&backbone) {
        let mut session = session.late();
        let texts = [text(6, 1), text(9, 4), text(5, 8)];
        let [a, b, c] = texts.each_ref().map(|_| session.open(None));
        let first = session.step(&[Part::new(a, &texts[0], true)]).unwrap();
        let first = greedy(&first, &[0]);
        assert!(!first.is_here());
        let second = session.step(&[Part::new(b, &texts[1], true), Part::new(c, &texts[2], false)]);
        let second = greedy(&second.unwrap(), &[1, 0, 0]);
        let parts =
            [Part::new(c, &[11, 5], true), Part::drawn(b, &second, 2), Part::drawn(a, &first, 0)];
        let logits = session.step(&parts).unwrap();
        let [first, second] = [first.wait().unwrap()[0], second.wait().unwrap()[2]];
        for (part, (text, read)) in
            [(&texts[2], vec![11, 5]), (&texts[1], vec![second]), (&texts[0], vec![first])]
                .into_iter()
                .enumerate()
        {
            let all = [text.as_slice(), &read].concat();
            let worst = difference(&logits.of(part).unwrap(), &whole(&backbone, None, &all));
            assert!(worst < 1e-5, "{part}: {worst}");
        }
        let parts = [Part::drawn(a, &greedy(&logits, &[0, 1]), 2)]
            .map(|part| session.step(&[part]).unwrap_err());
        assert!(parts[0].to_string().contains("no draw 2 among 2"), "{}", parts[0]);
    }
}
