//! From the text of `virtnet.conf` to checked values, each with its line. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use virtnet_model::{Features, Generation, Mac};

use super::keys::{Key, Kind};
use super::{Problem, problem};

/// A value of the kind that its key wants.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Flag(bool),
    Number(u32),
    Text(String),
    Mac(Mac),
    Features(Features),
    Object(Values),
}

/// The values of an object by key, each with its line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values(BTreeMap<&'static str, (usize, Value)>);

impl Values {
    /// The line of a key that is there.
    pub(crate) fn line(&self, key: &str) -> Option<usize> {
        self.0.get(key).map(|(line, _)| *line)
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.0.get(key) {
            Some((_, Value::Flag(flag))) => Some(*flag),
            _ => None,
        }
    }

    pub(crate) fn number(&self, key: &str) -> Option<u32> {
        match self.0.get(key) {
            Some((_, Value::Number(number))) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key) {
            Some((_, Value::Text(text))) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn mac(&self, key: &str) -> Option<Mac> {
        match self.0.get(key) {
            Some((_, Value::Mac(mac))) => Some(*mac),
            _ => None,
        }
    }

    pub(crate) fn features(&self, key: &str) -> Option<&Features> {
        match self.0.get(key) {
            Some((_, Value::Features(features))) => Some(features),
            _ => None,
        }
    }

    /// The values of an object; none where it is not there.
    pub(crate) fn object(&self, key: &str) -> Self {
        match self.0.get(key) {
            Some((_, Value::Object(values))) => values.clone(),
            _ => Self::default(),
        }
    }
}

/// The members of a JSON object in the order in which they are written, twice where they are there twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// A text that is read, and what is wrong with it.
pub(crate) struct Reader<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, problems: Vec::new() }
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The line of a part of the text, from 1.
    fn line(&self, part: &str) -> usize {
        let offset = (part.as_ptr() as usize).saturating_sub(self.text.as_ptr() as usize);
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    /// The word of a key, before the rest is read: what it may be depends on it. Whatever is wrong is left to
    /// [`Reader::object`].
    pub(crate) fn peek(&self, wanted: &str) -> Option<String> {
        let Members(members) = serde_json::from_str(self.text).ok()?;
        let (_, raw) = members.into_iter().find(|(name, _)| name == wanted)?;
        serde_json::from_str(raw.get()).ok()
    }

    /// Reads an object of these keys; `part` is the text or a part of it.
    pub(crate) fn object(
        &mut self,
        part: &'a str,
        path: &str,
        keys: &'static [Key],
        now: Generation,
    ) -> Values {
        let mut values = Values::default();
        let members = match serde_json::from_str(part) {
            Ok(Members(members)) => members,
            Err(error) => {
                // Lines are counted from that of the part.
                let line = self.line(part) + error.line().max(1) - 1;
                self.problems.push(problem(Some(line), path, json_error(&error)));
                return values;
            }
        };
        let mut seen = BTreeSet::new();
        for (name, raw) in members {
            let line = self.line(raw.get());
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if !seen.insert(name.clone()) {
                self.problems.push(problem(Some(line), &path, "it is there twice".to_owned()));
                continue;
            }
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let known: Vec<_> = keys.iter().filter(|key| is_of(key, now)).map(|key| key.name).collect();
                let why = format!("there is no such key; there are {}", known.join(", "));
                self.problems.push(problem(Some(line), &path, why));
                continue;
            };
            if !is_of(key, now) {
                let why = match now {
                    Generation::Guide => "a key of the later generation: set generation to \"later\" first",
                    Generation::Later => "a key of the guide's generation: it is static_pf.mac_base now",
                };
                self.problems.push(problem(Some(line), &path, why.to_owned()));
                continue;
            }
            let value = match &key.kind {
                Kind::Object(keys) => Ok(Value::Object(self.object(raw.get(), &path, keys, now))),
                kind => scalar(raw.get(), kind),
            };
            match value {
                Ok(value) => {
                    values.0.insert(key.name, (line, value));
                }
                Err(why) => self.problems.push(problem(Some(line), &path, why)),
            }
        }
        values
    }
}

fn is_of(key: &Key, generation: Generation) -> bool {
    key.only.is_none_or(|only| only == generation)
}

/// What serde_json says, without the place, which is told apart.
fn json_error(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().to_owned()
}

/// A value that is no object.
fn scalar(raw: &str, kind: &Kind) -> Result<Value, String> {
    let value: serde_json::Value = serde_json::from_str(raw).map_err(|error| json_error(&error))?;
    let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
    let text = value.as_str();
    match kind {
        Kind::Flag => match number {
            Some(0) => Ok(Value::Flag(false)),
            Some(1) => Ok(Value::Flag(true)),
            _ => Err(format!("{raw} is not 0 or 1")),
        },
        Kind::Number(min, max) => number
            .filter(|number| (min..=max).contains(&number))
            .map(Value::Number)
            .ok_or_else(|| format!("{raw} is not a number from {min} to {max}")),
        Kind::Word(words) => text
            .filter(|text| words.contains(text))
            .map(|text| Value::Text(text.to_owned()))
            .ok_or_else(|| format!("{raw} is not {}", quoted(words))),
        Kind::Device => text
            .filter(|text| is_device(text))
            .map(|text| Value::Text(text.to_owned()))
            .ok_or_else(|| format!("{raw} is not the name of an RDMA device such as \"mlx5_0\"")),
        Kind::Mac => match text.map(str::parse) {
            Some(Ok(mac)) => Ok(Value::Mac(mac)),
            _ => Err(format!("{raw} is not a unicast MAC address such as \"0c:c4:7a:ff:22:93\"")),
        },
        Kind::Features => features(raw, text).map(Value::Features),
        Kind::Object(_) => Err(format!("{raw} is not an object")),
    }
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ")
}

fn is_device(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn features(raw: &str, text: Option<&str>) -> Result<Features, String> {
    let bits = text
        .and_then(Features::bits_of)
        .ok_or_else(|| format!("{raw} is not feature bits in hexadecimal such as \"0x10020\""))?;
    Features::from_bits(bits).map_err(|bit| format!("{raw}: bit {bit} is no feature of virtio-net"))
}
