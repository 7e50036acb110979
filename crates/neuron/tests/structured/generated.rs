//! Schemas from a seed: everything that is enforced, in random combination.

use kernels::check::Noise;
use serde_json::{Map, Value, json};

const NAMES: [&str; 10] =
    ["id", "name", "kind", "count", "tags", "é\"tat", "a b", "nested", "value", "x-1"];
const WORDS: [&str; 6] = ["red", "green", "", "two words", "quo\"te", "naïve"];
const PATTERNS: [&str; 6] = [
    "^[A-Z]{2}-[0-9]{3}$",
    "^(ab|cd)+e?$",
    "^\\d{1,3}(\\.\\d{1,2})?$",
    "^[^\\s@]{1,6}@[a-z]{2,5}\\.org$",
    "[0-9]$",
    "^#[0-9a-f]{6}$",
];
const FORMATS: [&str; 6] = ["uuid", "ipv4", "time", "hostname", "duration", "ipv6"];

/// The schema of a seed: an object at the root, as applications have it.
pub(crate) fn schema(seed: u64) -> Value {
    let mut random = Random(Noise::new(seed + 1));
    let mut root = random.object(2);
    let leaf = random.scalar();
    root["$defs"] = json!({
        "leaf": leaf,
        "tree": {
            "type": "object",
            "properties": {
                "value": {"$ref": "#/$defs/leaf"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 1},
            },
            "required": ["value"],
            "additionalProperties": false,
        },
    });
    root
}

struct Random(Noise);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    fn any(&mut self, depth: usize) -> Value {
        if depth == 0 {
            return self.scalar();
        }
        match self.below(10) {
            0 | 1 => self.object(depth - 1),
            2 | 3 => self.array(depth - 1),
            4 => json!({"anyOf": [self.any(depth - 1), self.scalar()]}),
            5 => json!({"$ref": if self.below(2) == 0 { "#/$defs/leaf" } else { "#/$defs/tree" }}),
            6 => json!({"oneOf": [self.string(), self.integer(), {"type": "null"}]}),
            _ => self.scalar(),
        }
    }

    fn object(&mut self, depth: usize) -> Value {
        let mut properties = Map::new();
        for _ in 0..=self.below(4) {
            let name = self.pick(&NAMES);
            let schema = self.any(depth);
            properties.insert(name.to_owned(), schema);
        }
        let names: Vec<String> = properties.keys().cloned().collect();
        let required: Vec<String> = names.into_iter().filter(|_| self.below(3) > 0).collect();
        let mut object = json!({"type": "object", "properties": properties, "required": required});
        match self.below(6) {
            0 => {}
            1 => object["additionalProperties"] = self.scalar(),
            _ => object["additionalProperties"] = false.into(),
        }
        object
    }

    fn array(&mut self, depth: usize) -> Value {
        let least = self.below(3);
        let most = least + self.below(3);
        let mut array = json!({"type": "array", "minItems": least, "maxItems": most});
        match self.below(4) {
            0 => {
                array["prefixItems"] = json!([self.any(depth), self.scalar()]);
                array["items"] = self.scalar();
            }
            _ => array["items"] = self.any(depth),
        }
        array
    }

    fn scalar(&mut self) -> Value {
        match self.below(9) {
            0 => json!({"type": "boolean"}),
            1 => json!({"type": ["integer", "null"], "minimum": -5}),
            2 => json!({"enum": [self.pick(&WORDS), self.below(50), null, [true]]}),
            3 => json!({"const": self.pick(&WORDS)}),
            4 => self.integer(),
            5 => self.number(),
            _ => self.string(),
        }
    }

    fn string(&mut self) -> Value {
        let least = self.below(4);
        match self.below(5) {
            0 => json!({"type": "string", "pattern": self.pick(&PATTERNS), "maxLength": 40}),
            1 => json!({"type": "string", "format": self.pick(&FORMATS)}),
            2 => json!({"type": "string"}),
            3 => json!({"type": "string", "minLength": least}),
            _ => json!({"type": "string", "minLength": least, "maxLength": least + self.below(20)}),
        }
    }

    fn integer(&mut self) -> Value {
        let least = self.below(2000) as i64 - 1000;
        let most = least + 10 + self.below(3000) as i64;
        match self.below(4) {
            0 => json!({"type": "integer", "minimum": least}),
            1 => json!({"type": "integer", "multipleOf": 1 + self.below(9), "maximum": most}),
            2 => json!({"type": "integer", "exclusiveMinimum": least, "exclusiveMaximum": most}),
            _ => json!({"type": "integer", "minimum": least, "maximum": most}),
        }
    }

    fn number(&mut self) -> Value {
        let least = self.below(200) as f64 / 8.0 - 10.0;
        match self.below(4) {
            0 => json!({"type": "number"}),
            1 => json!({"type": "number", "multipleOf": 0.5, "minimum": least}),
            2 => json!({"type": "number", "exclusiveMinimum": least, "maximum": least + 7.25}),
            _ => json!({"type": "number", "minimum": least, "exclusiveMaximum": least + 0.5}),
        }
    }
}
