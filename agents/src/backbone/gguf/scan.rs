//! Walks over the header of a GGUF file before candle's reader sees it.
//!
//! Counts and lengths are held against the bytes that are there, the number of values against what any
//! model has, and the alignment against what makes sense; with that, the reader cannot be made to
//! allocate absurdly or to divide by zero. A name that is there twice is refused, for the reader would
//! silently take the last. Keeps nothing of what it reads.

use std::collections::HashSet;

/// Most values in all metadata: a vocabulary of 262,144 with scores, types and merges has a quarter.
const MOST_VALUES: u64 = 1 << 22;
/// Most metadata entries, and most tensors.
const MOST_ENTRIES: u64 = 1 << 16;
/// How deep arrays may lie in arrays.
const DEEPEST: usize = 4;
/// How much of a name is shown, in bytes.
const LONGEST_SHOWN: usize = 80;
/// The key that says at which multiples tensors start.
const ALIGNMENT: &[u8] = b"general.alignment";

/// Why a walk stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// The bytes ended before the header did.
    Short,
    /// The header is not one.
    Bad(String),
}

type Step<T> = Result<T, Stop>;

/// The length of the header that `bytes` begin with.
pub(super) fn scan(bytes: &[u8]) -> Step<usize> {
    let mut walk = Walk { rest: bytes, values: MOST_VALUES };
    if walk.take(4)? != b"GGUF" {
        return Err(bad("it does not begin with GGUF"));
    }
    let version = walk.u32()?;
    if !(2..=3).contains(&version) {
        return Err(Stop::Bad(format!("version {version}; 2 and 3 are read")));
    }
    let (tensors, entries) = (walk.u64()?, walk.u64()?);
    if tensors > MOST_ENTRIES || entries > MOST_ENTRIES {
        return Err(Stop::Bad(format!("it announces {tensors} tensors and {entries} entries")));
    }
    let mut seen = HashSet::new();
    for _ in 0..entries {
        let key = walk.new_name(&mut seen)?;
        let kind = walk.u32()?;
        let value = walk.value(kind, 0)?;
        if key == ALIGNMENT {
            let alignment: [u8; 4] = value.try_into().unwrap_or_default();
            let alignment = u32::from_le_bytes(alignment);
            if kind != 4 || !alignment.is_power_of_two() || alignment > 1 << 16 {
                return Err(bad("its alignment is no power of two up to 65536"));
            }
        }
    }
    seen.clear();
    for _ in 0..tensors {
        walk.new_name(&mut seen)?;
        let rank = walk.u32()?;
        if !(1..=4).contains(&rank) {
            return Err(Stop::Bad(format!("a tensor with {rank} dimensions")));
        }
        // Dimensions, type, offset.
        walk.take(8 * u64::from(rank) + 4 + 8)?;
    }
    Ok(bytes.len() - walk.rest.len())
}

fn bad(reason: &str) -> Stop {
    Stop::Bad(reason.to_owned())
}

/// What is left to walk, and how many values it may still have.
struct Walk<'a> {
    rest: &'a [u8],
    values: u64,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: u64) -> Step<&'a [u8]> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Stop::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Step<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap_or_default()))
    }

    fn u64(&mut self) -> Step<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().unwrap_or_default()))
    }

    fn string(&mut self) -> Step<&'a [u8]> {
        let length = self.u64()?;
        self.take(length)
    }

    /// A name that was not there before, without the trailing zeros that the reader drops.
    fn new_name(&mut self, seen: &mut HashSet<&'a [u8]>) -> Step<&'a [u8]> {
        let name = self.string()?;
        let end = name.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        if !seen.insert(&name[..end]) {
            let name = String::from_utf8_lossy(&name[..end.min(LONGEST_SHOWN)]);
            return Err(Stop::Bad(format!("`{name}` is there twice")));
        }
        Ok(&name[..end])
    }

    /// Walks over a value and gives its bytes; an array's are empty.
    fn value(&mut self, kind: u32, depth: usize) -> Step<&'a [u8]> {
        self.spend(1)?;
        match kind {
            8 => self.string(),
            9 => {
                self.array(depth)?;
                Ok(&[])
            }
            _ => self.take(size(kind)?),
        }
    }

    fn array(&mut self, depth: usize) -> Step<()> {
        if depth == DEEPEST {
            return Err(bad("arrays lie too deep in arrays"));
        }
        let (kind, count) = (self.u32()?, self.u64()?);
        if kind == 8 || kind == 9 {
            for _ in 0..count {
                self.value(kind, depth + 1)?;
            }
        } else {
            self.spend(count)?;
            self.take(count.saturating_mul(size(kind)?))?;
        }
        Ok(())
    }

    fn spend(&mut self, count: u64) -> Step<()> {
        let left = self.values.checked_sub(count);
        self.values = left.ok_or_else(|| bad("it holds more metadata than any model"))?;
        Ok(())
    }
}

/// Bytes of a plain value.
fn size(kind: u32) -> Step<u64> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        other => Err(Stop::Bad(format!("a value of unknown type {other}"))),
    }
}
