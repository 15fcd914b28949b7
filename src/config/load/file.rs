//! The configuration file: TOML with flat, quoted keys.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Given, Origin, look_up, unknown};
use crate::config::{
    problem::Problem,
    setting::{Kind, Setting},
};

/// Reads a file's text; what it sets goes to `given`, what is wrong to `problems`.
pub(super) fn read(
    path: &Arc<Path>,
    text: &str,
    given: &mut BTreeMap<&'static str, Given>,
    problems: &mut Vec<Problem>,
) {
    let at = |offset: usize| {
        let before = text.as_bytes().get(..offset).unwrap_or_default();
        Origin::File(Arc::clone(path), 1 + before.iter().filter(|b| **b == b'\n').count())
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table.into_inner(),
        Err(e) => {
            let origin = at(e.span().map_or(0, |s| s.start));
            let text = format!("is not valid TOML: {}", e.message());
            return problems.push(Problem { key: String::new(), origin, text });
        }
    };
    for (name, value) in table {
        let origin = at(name.span().start);
        let name = name.into_inner();
        match (look_up(&name), value.get_ref()) {
            (_, DeValue::Table(inner)) => problems.push(unquoted(&name, inner, origin)),
            (None, _) => problems.push(unknown(&name, origin)),
            (Some((setting, name)), value) => match text_of(setting, value) {
                Some(text) => drop(given.insert(name, Given { text, origin })),
                None => {
                    let text = format!("{} is not {}", kind_of(value), setting.kind.expected());
                    problems.push(Problem { key: name.to_owned(), origin, text });
                }
            },
        }
    }
}

/// A dotted key without quotes makes TOML tables: says how to write it.
fn unquoted(name: &str, table: &DeTable<'_>, origin: Origin) -> Problem {
    let (mut full, mut table) = (name.to_owned(), Some(table));
    while let Some((inner, value)) = table.and_then(|t| t.iter().next()) {
        full = format!("{full}.{}", inner.get_ref());
        table = match value.get_ref() {
            DeValue::Table(deeper) => Some(deeper),
            _ => None,
        };
    }
    let text = format!("keys are quoted: write \"{full}\" = ...");
    Problem { key: full, origin, text }
}

/// A value's text, when its type fits the setting.
fn text_of(setting: &Setting, value: &DeValue<'_>) -> Option<String> {
    match (setting.kind, value) {
        (Kind::Boolean, DeValue::Boolean(b)) => Some(b.to_string()),
        (Kind::Int | Kind::Long, DeValue::Integer(n)) => {
            i64::from_str_radix(n.as_str(), n.radix()).ok().map(|n| n.to_string())
        }
        (Kind::Double, DeValue::Float(n)) => Some(n.as_str().to_owned()),
        (Kind::Double, DeValue::Integer(n)) => Some(n.as_str().to_owned()),
        (Kind::Text | Kind::List, DeValue::String(s)) => Some(s.to_string()),
        (Kind::List, DeValue::Array(items)) => {
            let text = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
                DeValue::String(s) => Some(s.to_string()),
                _ => None,
            };
            items.iter().map(text).collect::<Option<Vec<_>>>().map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number (of at most 64 bits)",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
