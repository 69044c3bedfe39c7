//! The prepared file: everything about a model that transformers was asked for, once, by `text-generation-server
//! prepare`. The router knows nothing else about a model's text. Reading it checks it; nothing is downloaded here.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};
use text_generation_scheduler::TokenId;

use crate::families::ImageMarks;

/// The layout of the file this program reads.
const FORMAT: u32 = 1;

/// Larger files are refused unread; the largest tokenizers are a tenth of it.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// How `inputs` of text-generation routes reach the model.
#[derive(Copy, Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum RawPrompt {
    /// As they are.
    #[default]
    Text,
    /// As one user turn of a chat, for a model that was trained on nothing else.
    Chat,
}

/// What is known about a model before its weights are loaded.
#[derive(Clone, Debug, Deserialize)]
pub struct PreparedModel {
    format: u32,
    /// What the operator called it.
    pub model_id: String,
    /// The commit of a Hub snapshot.
    #[serde(default)]
    pub revision: Option<String>,
    /// The folder with its weights, absolute once read.
    pub model_dir: PathBuf,
    /// `model_type` of its configuration.
    pub model_type: String,
    /// Its `config.json`.
    pub config: Value,
    /// Image processor settings with the outer processor's keys beside them; empty for a text model.
    #[serde(default)]
    pub processor: Value,
    /// For an image-text model of transformers: how its processor marks images.
    #[serde(default)]
    pub image_marks: Option<ImageMarks>,
    /// The tokenizer as transformers runs it, in the `tokenizers` library's own format.
    pub tokenizer: Value,
    /// `bos_token`, `eos_token` and the like, by name.
    #[serde(default)]
    pub special_tokens: Map<String, Value>,
    /// Added tokens that user text must never become in a chat.
    #[serde(default)]
    pub control_tokens: Vec<String>,
    /// Those of them that stand for images, videos and sounds.
    #[serde(default)]
    pub media_tokens: Vec<String>,
    /// The default chat template.
    #[serde(default)]
    pub chat_template: Option<String>,
    /// Ids that end an answer.
    #[serde(default)]
    pub eos_token_ids: Vec<TokenId>,
    /// Its `generation_config.json`.
    #[serde(default)]
    pub generation: Value,
    /// Hex digest of the files that were read; part of every image's identity.
    pub identity: String,
    /// How `inputs` reach the model.
    #[serde(default)]
    pub raw_prompt: RawPrompt,
}

/// A prepared file that cannot be used. The operator reads these, so they name files.
#[derive(Debug, thiserror::Error)]
pub enum PreparedError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is larger than any prepared file.
    #[error("{path} has {bytes} bytes, which no prepared model has")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// It is not JSON of the right shape.
    #[error("{path} is not a prepared model: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// Another version of `prepare` wrote it.
    #[error(
        "{path} has format {found}, this program reads format {FORMAT}; run `text-generation-server prepare` again"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it has.
        found: u32,
    },
    /// One of its fields cannot be right.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which field and why.
        reason: String,
    },
}

impl PreparedModel {
    /// Reads and checks a prepared file. A relative `model_dir` counts from the file's folder.
    pub fn read(path: &Path) -> Result<Self, PreparedError> {
        let text = read_bounded(path)?;
        let mut model: Self =
            serde_json::from_slice(&text).map_err(|source| PreparedError::Parse { path: path.to_owned(), source })?;
        if model.format != FORMAT {
            return Err(PreparedError::Format { path: path.to_owned(), found: model.format });
        }
        model.check().map_err(|reason| PreparedError::Invalid { path: path.to_owned(), reason })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        model.model_dir = absolute(&folder.join(&model.model_dir), path)?;
        Ok(model)
    }

    /// A named special token, such as `bos_token`.
    pub fn special_token(&self, name: &str) -> Option<String> {
        self.special_tokens.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn check(&self) -> Result<(), String> {
        let objects = [("config", &self.config), ("tokenizer", &self.tokenizer)];
        if let Some((name, _)) = objects.iter().find(|(_, value)| !value.is_object()) {
            return Err(format!("`{name}` is not an object"));
        }
        if self.config.get("model_type").and_then(Value::as_str) != Some(&self.model_type) {
            return Err(format!("`model_type` is {:?}, but `config` says otherwise", self.model_type));
        }
        if self.identity.is_empty() {
            return Err("`identity` is empty".to_owned());
        }
        match self.media_tokens.iter().find(|token| !self.control_tokens.contains(token)) {
            Some(token) => Err(format!("`media_tokens` has {token:?}, which is not in `control_tokens`")),
            None => Ok(()),
        }
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, PreparedError> {
    let failed = |source| PreparedError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_FILE_BYTES {
        return Err(PreparedError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read(path).map_err(failed)
}

fn absolute(folder: &Path, path: &Path) -> Result<PathBuf, PreparedError> {
    let folder = std::path::absolute(folder).map_err(|source| PreparedError::Read { path: path.to_owned(), source })?;
    Ok(folder.components().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn valid() -> Value {
        json!({
            "format": 1, "model_id": "a/b", "revision": "abc", "model_dir": "weights", "model_type": "llava",
            "config": {"model_type": "llava"}, "processor": {}, "tokenizer": {"model": {}},
            "special_tokens": {"bos_token": "<s>"}, "control_tokens": ["<s>", "<image>"], "media_tokens": ["<image>"],
            "chat_template": null, "eos_token_ids": [2], "generation": {}, "identity": "00ff",
        })
    }

    fn read(value: &Value) -> Result<PreparedModel, PreparedError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("prepared.json");
        std::fs::write(&path, value.to_string()).expect("it is written");
        PreparedModel::read(&path)
    }

    #[track_caller]
    fn refused(change: impl Fn(&mut Value), reason: &str) {
        let mut value = valid();
        change(&mut value);
        let error = read(&value).expect_err("it is refused").to_string();
        assert!(error.contains(reason), "{error}");
    }

    #[test]
    fn a_valid_file_is_read() {
        let model = read(&valid()).expect("it is valid");
        assert_eq!(model.special_token("bos_token").as_deref(), Some("<s>"));
        assert_eq!(model.special_token("eos_token"), None);
        assert_eq!((model.raw_prompt, model.eos_token_ids), (RawPrompt::Text, vec![2]));
    }

    #[test]
    fn the_model_folder_counts_from_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("prepared.json");
        for (written, expected) in [("weights", folder.path().join("weights")), (".", folder.path().to_owned())] {
            let mut value = valid();
            value["model_dir"] = json!(written);
            std::fs::write(&path, value.to_string()).expect("it is written");
            assert_eq!(PreparedModel::read(&path).expect("it is valid").model_dir, expected);
        }
    }

    #[test]
    fn broken_files_are_refused_with_a_reason() {
        refused(|value| value["format"] = json!(2), "has format 2, this program reads format 1");
        refused(|value| value["config"] = json!([]), "`config` is not an object");
        refused(|value| value["tokenizer"] = json!("x"), "`tokenizer` is not an object");
        refused(|value| value["model_type"] = json!("qwen2_vl"), "`config` says otherwise");
        refused(|value| value["identity"] = json!(""), "`identity` is empty");
        refused(|value| value["media_tokens"] = json!(["<video>"]), "\"<video>\"");
        refused(|value| value["raw_prompt"] = json!("other"), "unknown variant `other`");
        refused(|value| value["eos_token_ids"] = json!([-1]), "is not a prepared model");
        refused(|value| *value = json!([]), "is not a prepared model");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = PreparedModel::read(Path::new("/nowhere/prepared.json")).expect_err("there is none").to_string();
        assert!(error.starts_with("cannot read /nowhere/prepared.json"), "{error}");
    }
}
