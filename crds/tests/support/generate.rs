//! Random objects for a CRD's schema: mostly right, wrong in a few places.

use rand::RngExt;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

/// Makes random objects. The same generator in the same state makes the same object.
#[derive(Debug)]
pub(crate) struct Generator {
    /// The source of all choices.
    pub(crate) rng: ChaCha8Rng,
    /// Chance of a mistake at each place, 0 to 1.
    pub(crate) mistakes: f64,
}

impl Generator {
    /// An object of the kind with this CRD (in JSON).
    pub(crate) fn object(&mut self, crd: &Value) -> Value {
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut object = self.fields(schema, "");
        let Some(fields) = object.as_object_mut() else { return object };
        fields.remove("status");
        if self.rng.random_bool(0.3) {
            let status = self.value(&schema["properties"]["status"], "status");
            fields.insert("status".to_owned(), status);
        }
        fields.insert("apiVersion".to_owned(), json!("virtnet.dev/v1alpha1"));
        fields.insert("kind".to_owned(), crd["spec"]["names"]["kind"].clone());
        let mut metadata = json!({ "name": "a" });
        if crd["spec"]["scope"] == "Namespaced" {
            metadata["namespace"] = json!("default");
        }
        fields.insert("metadata".to_owned(), metadata);
        object
    }

    /// A changed copy of an object of that kind.
    pub(crate) fn changed(&mut self, crd: &Value, object: &Value) -> Value {
        let other = self.object(crd);
        let mut object = object.clone();
        self.mix(&mut object, &other);
        object
    }

    fn mix(&mut self, object: &mut Value, other: &Value) {
        let (Some(fields), Some(others)) = (object.as_object_mut(), other.as_object()) else { return };
        for (name, other) in others {
            if self.rng.random_bool(0.15) {
                fields.insert(name.clone(), other.clone());
            } else if let Some(field) = fields.get_mut(name) {
                self.mix(field, other);
            }
        }
    }

    fn mistake(&mut self) -> bool {
        self.rng.random_bool(self.mistakes)
    }

    fn value(&mut self, schema: &Value, name: &str) -> Value {
        if self.mistake() {
            return self.nonsense();
        }
        if let Some(values) = schema["enum"].as_array() {
            return if self.mistake() { json!("Nonsense") } else { self.one_of(values) };
        }
        match schema["type"].as_str() {
            Some("object") if schema["additionalProperties"].is_object() => self.map(schema, name),
            Some("object") => self.fields(schema, name),
            Some("array") => self.list(schema, name),
            Some("string") => self.string(schema, name),
            Some("integer") => self.integer(schema, name),
            Some("boolean") => json!(self.rng.random_bool(0.5)),
            _ if self.rng.random_bool(0.5) => json!(self.rng.random_range(0..600)),
            _ => json!("True(1)"),
        }
    }

    fn one_of(&mut self, values: &[Value]) -> Value {
        values.choose(&mut self.rng).cloned().unwrap_or(Value::Null)
    }

    fn nonsense(&mut self) -> Value {
        self.one_of(&[
            Value::Null,
            json!(true),
            json!(-1),
            json!(1.5),
            json!(7.0),
            json!(1e19),
            json!("text"),
            json!([]),
            json!([1, 1]),
            json!([null]),
            json!({}),
            json!({ "unknown": 1 }),
        ])
    }

    fn fields(&mut self, schema: &Value, name: &str) -> Value {
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut fields = Map::new();
        for (property, child) in schema["properties"].as_object().into_iter().flatten() {
            let chance = if required.contains(&property.as_str()) { 1.0 - self.mistakes } else { 0.4 };
            if self.rng.random_bool(chance) {
                fields.insert(property.clone(), self.value(child, property));
            }
        }
        // Independent choices would seldom keep the rules between fields.
        if name == "function" && schema["properties"]["hotplug"].is_object() && !self.mistake() {
            let keep = self.one_of(&[json!("hotplug"), json!("static"), json!("vf")]);
            fields.retain(|name, _| *name == keep);
            if let Some(keep) = keep.as_str()
                && !fields.contains_key(keep)
            {
                let child = self.value(&schema["properties"][keep], keep);
                fields.insert(keep.to_owned(), child);
            }
        }
        if name == "port" && !self.mistake() {
            fields.remove("tag");
        }
        if name == "spec" && fields.contains_key("perVf") && !self.mistake() {
            fields.remove("replicas");
        }
        if self.mistake() {
            fields.insert("unknown".to_owned(), json!(1));
        }
        Value::Object(fields)
    }

    fn map(&mut self, schema: &Value, name: &str) -> Value {
        let many = self.mistake();
        let length = if many { 200 } else { self.rng.random_range(0..4) };
        let keys: &[Value] = match name {
            "values" => &[json!("PF_TOTAL_SF"), json!("VIRTIO_NET_EMULATION_NUM_VF"), json!("lower")],
            _ => &[json!("site"), json!("virtnet-uid"), json!("example.com/a"), json!("a_b")],
        };
        let mut entries = Map::new();
        for index in 0..length {
            let key = self.one_of(keys);
            let mut key = key.as_str().unwrap_or_default().to_owned();
            if many {
                key = format!("{key}{index}");
            } else if (key == "virtnet-uid" || key == "lower") && !self.mistake() {
                continue;
            }
            let value = self.value(&schema["additionalProperties"], "");
            entries.insert(key, value);
        }
        Value::Object(entries)
    }

    fn list(&mut self, schema: &Value, name: &str) -> Value {
        let length = if self.mistake() { 70 } else { self.rng.random_range(0..4) };
        let mut items: Vec<Value> = Vec::new();
        for _ in 0..length {
            let item = self.value(&schema["items"], name);
            let keys = schema["x-kubernetes-list-map-keys"].as_array();
            let same = |other: &Value| match keys {
                Some(keys) => keys.iter().filter_map(Value::as_str).all(|key| other[key] == item[key]),
                None => *other == item,
            };
            if items.iter().any(same) && !self.mistake() {
                continue;
            }
            items.push(item);
        }
        Value::Array(items)
    }

    fn string(&mut self, schema: &Value, name: &str) -> Value {
        if schema["format"] == "date-time" {
            return if self.mistake() {
                json!("2026-13-01T00:00:00Z")
            } else {
                json!("2026-01-02T03:04:05Z")
            };
        }
        let (right, wrong): (&[Value], &[Value]) = match name {
            "mac" | "pfMac" | "macBase" => (
                &[json!("0c:c4:7a:ff:22:93"), json!("02:00:00:00:00:01"), json!("0C:C4:7A:FF:22:93")],
                &[
                    json!("0c-c4-7a-ff-22-93"),
                    json!("01:00:5e:00:00:01"),
                    json!("00:00:00:00:00:00"),
                    json!(""),
                    json!("0c:c4:7a:ff:22:9\n"),
                ],
            ),
            "bridge" => (
                &[json!("ovsbr1"), json!("br-int")],
                &[json!("br/1"), json!("a b"), json!(".."), json!("a-bridge-of-20-chars"), json!("")],
            ),
            _ => (
                &[json!("a"), json!("bf3-a"), json!("Reconciled"), json!("mlx5_0")],
                &[json!(""), json!("ü\"\n<&>\u{200b}"), json!("x".repeat(400)), json!("-A b_")],
            ),
        };
        if self.mistake() { self.one_of(wrong) } else { self.one_of(right) }
    }

    fn integer(&mut self, schema: &Value, name: &str) -> Value {
        let minimum = schema["minimum"].as_f64().unwrap_or(-10.0) as i64;
        let maximum = schema["maximum"].as_f64().unwrap_or(10_000.0) as i64;
        if self.mistake() {
            return self.one_of(&[json!(minimum - 1), json!(maximum + 1), json!(minimum as f64 - 0.5)]);
        }
        if name == "size" {
            return self.one_of(&[json!(256), json!(1024), json!(1024.0), json!(2)]);
        }
        match self.rng.random_range(0..4) {
            0 => json!(minimum),
            1 => json!(maximum),
            _ => json!(self.rng.random_range(minimum..=maximum.min(minimum + 5000))),
        }
    }
}
