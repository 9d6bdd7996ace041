//! The JSON schema of scenario files, for editors; made from the types of [`super::file`].
//!
//! Draft 7, because that is what editors know for TOML. The same schema guides the walk of
//! [`super::structure`], so what an editor underlines and what `polylogue check` refuses agree.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::file::ScenarioFile;

/// The JSON schema of `scenario.toml`, as text.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", value())
}

/// The schema, every part written out in its place.
pub(super) fn value() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.into_generator().into_root_schema_for::<ScenarioFile>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_made_from_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../scenarios/scenario.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, schema()).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == schema(),
            "scenarios/scenario.schema.json is out of date; write it anew with\n  \
             UPDATE_SCHEMA=1 cargo test -p polylogue-sim the_committed_schema"
        );
    }

    #[test]
    fn nothing_is_by_reference() {
        assert!(!schema().contains("\"$ref\""), "the walk over a file follows no references");
    }
}
