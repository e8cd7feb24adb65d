//! Random mutations of valid files.
#![allow(dead_code)]

use rand::{Rng, RngExt};

/// Numbers that overflow or wrap around, or that are no numbers.
const NUMBERS: [&str; 8] =
    ["-1", "0", "18446744073709551615", "9223372036854775808", "4294967296", "1e308", "99999999999999999999", "null"];

/// The bytes with one to four mutations within the first `reach`.
pub fn mutated(bytes: &[u8], reach: usize, rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..5) {
        let reach = reach.min(bytes.len());
        if reach < 2 {
            break;
        }
        let at = rng.random_range(0..reach);
        let end = (at + rng.random_range(1..64)).min(bytes.len());
        match rng.random_range(0..7) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let noise: Vec<u8> = (at..end).map(|_| rng.random()).collect();
                bytes.splice(at..at, noise);
            }
            _ => {
                // Replaces the next number.
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                if let Some(start) = bytes[at..].iter().position(is_digit).map(|skip| at + skip) {
                    let length = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                    let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
                    bytes.splice(start..start + length, number.bytes());
                }
            }
        }
    }
    bytes
}

/// The number of mutations per file: `BERT_MUTATIONS`, by default 300.
pub fn rounds() -> usize {
    std::env::var("BERT_MUTATIONS").map_or(300, |rounds| rounds.parse().unwrap())
}
