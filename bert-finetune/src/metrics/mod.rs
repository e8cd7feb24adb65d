//! Evaluation metrics, computed exactly like the tools behind published results.
//!
//! | file | counts as |
//! |---|---|
//! | [`classification`], [`multi_label`] | scikit-learn with `zero_division=0` |
//! | [`regression`] | SciPy |
//! | [`retrieval`] | sentence-transformers' `InformationRetrievalEvaluator` |
//! | [`entities`] | seqeval and CoNLL's `conlleval` |
//! | [`squad`] | the official SQuAD v1.1 and v2.0 scripts |
//!
//! The tests compare with those tools' results in `tests/golden/metrics.json` and `tags.json`.

pub mod classification;
pub mod entities;
pub mod multi_label;
pub mod regression;
pub mod retrieval;
pub mod squad;

/// Results of the original tools, computed by `tests/golden/make_metric_goldens.py`.
#[cfg(test)]
mod golden {
    use serde::de::DeserializeOwned;
    use serde_json::Value;

    const GOLDEN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/metrics.json"));

    /// The cases of one section.
    pub fn cases(section: &str) -> Vec<Value> {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        field(&golden, section)
    }

    /// A field of a case.
    pub fn field<T: DeserializeOwned>(case: &Value, name: &str) -> T {
        serde_json::from_value(case[name].clone()).unwrap_or_else(|error| panic!("{name} in {case}: {error}"))
    }

    /// Compares every number of `expected`, at any depth, with the one of the same name in
    /// `computed`.
    pub fn assert_scores(expected: &Value, computed: &Value) {
        match (expected, computed) {
            (Value::Object(fields), _) => fields.iter().for_each(|(name, value)| assert_scores(value, &computed[name])),
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                a.iter().zip(b).for_each(|(a, b)| assert_scores(a, b));
            }
            (Value::Number(a), Value::Number(b)) => {
                let difference = (a.as_f64().unwrap() - b.as_f64().unwrap()).abs();
                assert!(difference < 1e-9, "expected {expected}, computed {computed}");
            }
            _ => assert_eq!(expected, computed),
        }
    }
}
