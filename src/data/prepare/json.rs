//! The text in a line of JSON, without a value of anything else in the line.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The string under `key` of the object in `line`; where there is none, why.
pub(super) fn text<'a>(line: &'a str, key: &str) -> Result<Cow<'a, str>, String> {
    let mut deserializer = serde_json::Deserializer::from_str(line);
    let found = Object(key).deserialize(&mut deserializer).and_then(|found| deserializer.end().map(|()| found));
    match found.map_err(|error| format!("it is no JSON ({})", place(&error)))? {
        Found::Text(text) if text.is_empty() => Err(format!("its {key:?} is empty")),
        Found::Text(text) => Ok(text),
        Found::Other(what) => Err(format!("its {key:?} is {what}, but must be a string")),
        Found::Twice => Err(format!("it has the key {key:?} twice")),
        Found::Missing(keys) if keys.is_empty() => Err(format!("it has no key {key:?}, nor any other")),
        Found::Missing(keys) => Err(format!("it has no key {key:?}, but {}", keys.join(", "))),
        Found::NoObject => Err("it is no object".to_owned()),
    }
}

/// The error without the number of the line, which is the first one of its own text.
fn place(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

/// Keys that are named where the wanted one is missing.
const NAMED: usize = 8;

enum Found<'a> {
    Text(Cow<'a, str>),
    /// What it is instead.
    Other(&'static str),
    Twice,
    /// The keys there are.
    Missing(Vec<String>),
    NoObject,
}

struct Object<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! what_else {
    ($value:expr; $($visit:ident($kind:ty)),*) => {
        $(fn $visit<E>(self, _: $kind) -> Result<Self::Value, E> {
            Ok($value)
        })*
    };
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut others): (Option<Found<'de>>, Vec<String>) = (None, Vec::new());
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            if key == self.0 {
                let value = map.next_value_seed(Text)?;
                found = Some(if found.is_some() { Found::Twice } else { value });
            } else {
                map.next_value::<IgnoredAny>()?;
                if found.is_none() && others.len() < NAMED {
                    others.push(format!("{:?}", key.chars().take(40).collect::<String>()));
                }
            }
        }
        Ok(found.unwrap_or(Found::Missing(others)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::NoObject)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Found::NoObject)
    }

    what_else!(Found::NoObject; visit_str(&str), visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64));
}

/// A key, in the line itself where it has no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Found<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Found<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Found::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Found::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Found::Other("an object"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other("a list"))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Found::Other("null"))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Found::Other("true or false"))
    }

    what_else!(Found::Other("a number"); visit_i64(i64), visit_u64(u64), visit_f64(f64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_line_is_the_string_under_its_key() {
        assert!(matches!(
            text(r#"{"id": 1, "text": "a b", "more": {"text": "no"}}"#, "text"),
            Ok(Cow::Borrowed("a b"))
        ));
        assert_eq!(text("{\"text\": \"\\u00e9\\n\\ud83d\\ude00\\u0000\"}\r", "text").unwrap(), "é\n😀\0");
        assert_eq!(text(r#"{"t\u0065xt": "a"}"#, "text").unwrap(), "a", "an escape in the key");
        assert_eq!(text(r#"{"a.b": "c"}"#, "a.b").unwrap(), "c");
        let deep = format!("{{\"x\": {}{}, \"text\": \"a\"}}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(text(&deep, "text").unwrap(), "a");
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said() {
        for (line, said) in [
            ("", "no JSON"),
            ("{\"text\": \"a\"", "no JSON (EOF while parsing an object at column 12)"),
            (r#"{"text": "a"} {"text": "b"}"#, "trailing characters"),
            (r#"{"text": "\ud800"}"#, "no JSON"),
            (r#"{"text": "\ud800\u0041"}"#, "no JSON"),
            ("{\"text\": \"a\u{0}\"}", "control character"),
            (r#"{"text": ""}"#, "is empty"),
            (r#"{"text": null}"#, "is null"),
            (r#"{"text": 3}"#, "is a number"),
            (r#"{"text": -3.5}"#, "is a number"),
            (r#"{"text": true}"#, "is true or false"),
            (r#"{"text": ["a"]}"#, "is a list"),
            (r#"{"text": {"text": "a"}}"#, "is an object"),
            (r#"{"text": "a", "b": 1, "text": "c"}"#, "twice"),
            (r#"{"content": "a", "id": 3}"#, r#"no key "text", but "content", "id""#),
            (r#"{"meta": {"text": "a"}}"#, "no key"),
            ("{}", "nor any other"),
            (r#""text""#, "no object"),
            ("[]", "no object"),
            ("17", "no object"),
            ("null", "no object"),
            ("NaN", "no JSON"),
        ] {
            let why = text(line, "text").unwrap_err();
            assert!(why.contains(said), "{line}: {why}");
        }
        let deep = "[".repeat(1_000_000);
        assert!(text(&deep, "text").is_err() && text(&format!("{{\"text\": {deep}"), "text").is_err());
    }
}
