//! The records that every program of tests/languages sends, and how it says what it read; see python/sample.py.

use std::collections::BTreeMap;

use serde_json::{json, Value};
use sha2::{Digest, Sha256};

/// `length` bytes: pseudo-random for even numbers, four letters for odd ones; they repeat after 64 KiB.
pub fn noise(number: u32, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(2_654_435_761);
    let block: Vec<u8> = (0..length.min(65_536))
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let top = (state >> 24) as u8;
            if number % 2 == 0 {
                top
            } else {
                97 + top % 4
            }
        })
        .collect();
    block.into_iter().cycle().take(length).collect()
}

pub fn key(number: u32) -> Option<Vec<u8>> {
    match number % 5 {
        0 => None,
        1 => Some(Vec::new()),
        _ => Some(format!("key-{}", number % 97).into_bytes()),
    }
}

pub fn value(number: u32) -> Option<Vec<u8>> {
    if number % 11 == 3 {
        return Some(Vec::new());
    }
    (number % 13 != 4 || number % 5 == 0).then(|| noise(number, (number * 37 % 1_500 + 1) as usize))
}

/// One value for each name, and none is missing: rskafka has no more.
pub fn headers(number: u32) -> BTreeMap<String, Vec<u8>> {
    let headers: Vec<(&str, Vec<u8>)> = match number % 4 {
        1 => vec![("n", number.to_string().into_bytes())],
        2 => vec![("same", b"1".to_vec()), ("other", Vec::new())],
        3 => vec![("Ünïcode", vec![0, 0xff]), ("null", Vec::new()), ("", b"unnamed".to_vec())],
        _ => Vec::new(),
    };
    headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn digest(content: Option<&Vec<u8>>) -> Value {
    let Some(content) = content else {
        return Value::Null;
    };
    let sum: String = Sha256::digest(content)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    json!(format!("{}:{sum}", content.len()))
}

/// A record as a program prints it.
pub fn seen(
    (partition, offset, timestamp): (i32, i64, i64),
    key: Option<&Vec<u8>>,
    value: Option<&Vec<u8>>,
    headers: &BTreeMap<String, Vec<u8>>,
) -> Value {
    let headers: Vec<Value> = headers.iter().map(|(name, content)| json!([name, digest(Some(content))])).collect();
    json!([partition, offset, timestamp, digest(key), digest(value), headers])
}
