//! Schemas in the shape of those that applications send.

use serde_json::{Value, json};

pub(crate) fn schemas() -> Vec<Value> {
    let mut schemas = flat();
    schemas.extend(nested());
    schemas.extend(recursive());
    schemas
}

fn flat() -> Vec<Value> {
    let weather = json!({"type": "object", "properties": {
        "location": {"type": "string", "description": "City and country", "maxLength": 60},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 14}},
        "required": ["location", "unit", "days"], "additionalProperties": false});
    let moderation = json!({"type": "object", "properties": {
        "flagged": {"type": "boolean"},
        "category": {"enum": ["none", "violence", "self-harm", "harassment", null]},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "reason": {"type": ["string", "null"], "maxLength": 120}},
        "required": ["flagged", "category", "score", "reason"], "additionalProperties": false});
    let event = json!({"type": "object", "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 40},
        "day": {"type": "string", "pattern": "^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])$"},
        "starts": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
        "participants": {"type": "array", "items": {"type": "string", "maxLength": 20},
            "maxItems": 4}},
        "required": ["name", "day", "starts", "participants"], "additionalProperties": false});
    let user = json!({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "handle": {"type": "string", "pattern": "^[a-z][a-z0-9_]{2,15}$"},
            "age": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 150},
            "ratio": {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 4},
            "ip": {"type": "string", "format": "ipv4"}},
        "required": ["id", "handle", "age"], "additionalProperties": false});
    vec![
        weather,
        moderation,
        event,
        user,
        json!({"type": "array", "items": {"type": "integer"},
        "minItems": 2, "maxItems": 5}),
        json!({"enum": ["yes", "no", 3, [1], {"a": null}]}),
    ]
}

fn nested() -> Vec<Value> {
    let invoice = json!({"type": "object", "properties": {
        "number": {"type": "string", "pattern": "^INV-[0-9]{4,6}$"},
        "currency": {"const": "EUR"},
        "lines": {"type": "array", "minItems": 1, "maxItems": 4, "items": {
            "type": "object", "properties": {
                "text": {"type": "string", "maxLength": 30},
                "quantity": {"type": "integer", "minimum": 1, "maximum": 999},
                "price": {"$ref": "#/$defs/money"}},
            "required": ["text", "quantity", "price"], "additionalProperties": false}},
        "total": {"$ref": "#/$defs/money"}},
        "required": ["number", "currency", "lines", "total"], "additionalProperties": false,
        "$defs": {"money": {"type": "number", "minimum": 0, "maximum": 100000}}});
    let shapes = json!({"type": "object", "properties": {"shape": {"anyOf": [
        {"type": "object", "properties": {"kind": {"const": "circle"},
            "radius": {"type": "number", "exclusiveMinimum": 0, "maximum": 100}},
            "required": ["kind", "radius"], "additionalProperties": false},
        {"type": "object", "properties": {"kind": {"const": "box"},
            "sides": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "integer"}],
                "items": false, "minItems": 2}},
            "required": ["kind", "sides"], "additionalProperties": false}]}},
        "required": ["shape"], "additionalProperties": false});
    let labels = json!({"type": "object", "properties": {"labels": {"type": "object",
        "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9},
        "maxProperties": 3}}, "required": ["labels"], "additionalProperties": false});
    let headers = json!({"type": "object", "patternProperties": {
        "^x-[a-z]{1,8}$": {"type": "string", "maxLength": 8}}, "maxProperties": 3,
        "additionalProperties": false});
    let both = json!({"allOf": [
        {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]}],
        "type": "object", "properties": {"a": {"maximum": 10}, "b": true},
        "additionalProperties": false});
    vec![invoice, shapes, labels, headers, both]
}

fn recursive() -> Vec<Value> {
    let steps = json!({"type": "object", "properties": {
        "steps": {"type": "array", "maxItems": 3, "items": {"type": "object", "properties": {
            "explanation": {"type": "string", "maxLength": 40},
            "output": {"type": "string", "maxLength": 40}},
            "required": ["explanation", "output"], "additionalProperties": false}},
        "final_answer": {"type": "string", "maxLength": 40}},
        "required": ["steps", "final_answer"], "additionalProperties": false});
    let list = json!({"type": "object", "properties": {"head": {"$ref": "#/$defs/node"}},
        "required": ["head"], "additionalProperties": false,
        "$defs": {"node": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {
            "value": {"type": "integer", "minimum": 0, "maximum": 99},
            "next": {"$ref": "#/$defs/node"}},
            "required": ["value", "next"], "additionalProperties": false}]}}});
    let interface = json!({"type": "object", "properties": {
        "type": {"enum": ["div", "button", "header", "field"]},
        "label": {"type": "string", "maxLength": 12},
        "children": {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}},
        "required": ["type", "label", "children"], "additionalProperties": false});
    vec![steps, list, interface]
}
