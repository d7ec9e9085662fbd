//! Names of networks, keys and settings as people write them.

use serde_json::Value;

use crate::text;

/// A network's name as its paper writes it.
pub fn network(architecture: &str) -> String {
    match architecture {
        "alexnet" => "AlexNet".to_owned(),
        "lenet5" => "LeNet-5".to_owned(),
        other => text::visible(other),
    }
}

/// A key's short name: its symbol where it has one, else the last part of its path.
pub fn key(path: &str) -> String {
    match path {
        "train.weight_decay" => "λ".to_owned(),
        "train.learning_rate" => "η".to_owned(),
        "train.momentum" => "μ".to_owned(),
        other => text::visible(other.rsplit('.').next().unwrap_or(other)),
    }
}

/// A key's name on an axis.
pub fn axis(path: &str) -> String {
    match path {
        "train.weight_decay" => "weight decay λ".to_owned(),
        "train.learning_rate" => "learning rate η (per step)".to_owned(),
        "train.momentum" => "momentum μ".to_owned(),
        "train.batch_size" => "batch size (images)".to_owned(),
        other => text::visible(other.rsplit('.').next().unwrap_or(other)).replace('_', " "),
    }
}

/// A value of a key: `0.0005`, `book`, `step(every_epochs=10)`.
pub fn value(value: &Value) -> String {
    match value {
        Value::String(word) => text::visible(word),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(real)) => text::significant(real, 6),
            _ => number.to_string(),
        },
        Value::Object(table) => {
            let inner = |skip: Option<&str>| {
                let parts: Vec<String> = table
                    .iter()
                    .filter(|(name, _)| Some(name.as_str()) != skip)
                    .map(|(name, inner)| format!("{}={}", text::visible(name), self::value(inner)))
                    .collect();
                parts.join(", ")
            };
            match table.get("kind").and_then(Value::as_str) {
                Some(kind) if table.len() == 1 => text::visible(kind),
                Some(kind) => format!("{}({})", text::visible(kind), inner(Some("kind"))),
                None => format!("{{{}}}", inner(None)),
            }
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(self::value).collect();
            format!("[{}]", items.join(", "))
        }
        other => other.to_string(),
    }
}

/// Assignments in one line: `λ=0.0005 schedule=book`.
pub fn assignments(assignments: &[(String, Value)]) -> String {
    let parts: Vec<String> =
        assignments.iter().map(|(path, assigned)| format!("{}={}", key(path), value(assigned))).collect();
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_read_as_people_write_them() {
        let swept = vec![
            ("train.schedule".to_owned(), json!({"kind": "step", "every_epochs": 10})),
            ("train.weight_decay".to_owned(), json!(0.0005)),
            ("train.epochs".to_owned(), json!(3)),
            ("model.x".to_owned(), json!("a\nb")),
        ];
        assert_eq!(assignments(&swept), "schedule=step(every_epochs=10) λ=0.0005 epochs=3 x=a b");
        assert_eq!(value(&json!({"kind": "book"})), "book");
        assert_eq!(value(&json!([1, null, {"a": true}])), "[1, null, {a=true}]");
    }
}
