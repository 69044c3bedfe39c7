//! What a completion continues: a text, a list of texts, token ids, or a list of lists of them. Shapes only.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error, SeqAccess, Visitor, value::SeqAccessDeserializer};
use serde::{Deserialize, Deserializer};
use text_generation_scheduler::TokenId;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::api::openapi::one_of;
use crate::api::tgi::Inputs;

/// Prompts that are read at all; how many are served is `--max-client-batch-size`.
const MAX_PROMPTS: usize = 1024;
/// Token ids that are read of all prompts together. More than any model's context.
const MAX_TOKEN_IDS: usize = 4 << 20;
const MIXED: &str = "a prompt is a string, a list of strings, a list of token ids, or a list of such lists";

/// The prompts of a request.
#[derive(Debug)]
pub(super) enum PromptBody {
    Texts(Vec<Inputs>),
    TokenIds(Vec<Vec<TokenId>>),
}

impl PromptBody {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::TokenIds(prompts) => prompts.len(),
        }
    }

    /// Whether there is no prompt, or one that says nothing.
    pub(super) fn has_empty(&self) -> bool {
        match self {
            Self::Texts(texts) => texts.is_empty() || texts.iter().any(|text| text.text.is_empty()),
            Self::TokenIds(prompts) => prompts.is_empty() || prompts.iter().any(Vec::is_empty),
        }
    }
}

/// What a list of prompts begins with, which decides what the rest may be.
enum First {
    Text(String),
    Id(TokenId),
    Ids(Vec<TokenId>),
}

impl<'de> Deserialize<'de> for PromptBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = PromptBody;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(MIXED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<PromptBody, E> {
                Ok(PromptBody::Texts(vec![Inputs::from(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<PromptBody, A::Error> {
                match items.next_element()? {
                    None => Ok(PromptBody::Texts(Vec::new())),
                    Some(First::Text(text)) => {
                        let texts = rest(Inputs::from(text), items, MAX_PROMPTS)?;
                        Ok(PromptBody::Texts(texts))
                    }
                    Some(First::Id(id)) => Ok(PromptBody::TokenIds(vec![rest(id, items, MAX_TOKEN_IDS)?])),
                    Some(First::Ids(ids)) => lists(ids, items).map(PromptBody::TokenIds),
                }
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

/// The list that begins with `first`, refused where it grows beyond `most`.
fn rest<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(first: T, mut items: A, most: usize) -> Result<Vec<T>, A::Error> {
    let mut all = vec![first];
    while let Some(item) = items.next_element()? {
        if all.len() == most {
            return Err(A::Error::custom(format!("more than {most} entries")));
        }
        all.push(item);
    }
    Ok(all)
}

fn lists<'de, A: SeqAccess<'de>>(first: Vec<TokenId>, mut items: A) -> Result<Vec<Vec<TokenId>>, A::Error> {
    let (mut total, mut all) = (first.len(), vec![first]);
    while let Some(ids) = items.next_element::<Vec<TokenId>>()? {
        total += ids.len();
        if all.len() == MAX_PROMPTS || total > MAX_TOKEN_IDS {
            return Err(A::Error::custom("too many prompts"));
        }
        all.push(ids);
    }
    Ok(all)
}

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = First;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(MIXED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<First, E> {
                Ok(First::Text(text.to_owned()))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<First, E> {
                TokenId::try_from(id).map(First::Id).map_err(|_| E::custom(format!("{id} is no token id")))
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<First, E> {
                Err(E::custom(format!("{id} is no token id")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, ids: A) -> Result<First, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(ids)).map(First::Ids)
            }
        }
        deserializer.deserialize_any(Shape)
    }
}

impl PartialSchema for PromptBody {
    fn schema() -> RefOr<Schema> {
        let (text, texts) = (String::schema(), Vec::<String>::schema());
        let (ids, lists) = (Vec::<TokenId>::schema(), Vec::<Vec<TokenId>>::schema());
        one_of("A text, a list of texts, token ids, or a list of lists of them.", [text, texts, ids, lists])
    }
}

impl ToSchema for PromptBody {
    fn name() -> Cow<'static, str> {
        "Prompt".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<PromptBody, serde_json::Error> {
        serde_json::from_str(json)
    }

    fn texts(json: &str) -> Vec<String> {
        match parse(json).unwrap() {
            PromptBody::Texts(texts) => texts.into_iter().map(|text| text.text).collect(),
            PromptBody::TokenIds(ids) => panic!("{ids:?}"),
        }
    }

    fn ids(json: &str) -> Vec<Vec<TokenId>> {
        match parse(json).unwrap() {
            PromptBody::TokenIds(ids) => ids,
            PromptBody::Texts(texts) => panic!("{texts:?}"),
        }
    }

    #[test]
    fn four_shapes() {
        assert_eq!(texts(r#""a""#), ["a"]);
        assert_eq!(texts(r#"["a", "b"]"#), ["a", "b"]);
        assert_eq!(ids("[1, 2, 3]"), [[1, 2, 3]]);
        assert_eq!(ids("[[1, 2], [3]]"), [vec![1, 2], vec![3]]);
        assert!(parse("[]").unwrap().has_empty());
        assert!(parse("[[1], []]").unwrap().has_empty());
    }

    #[test]
    fn nothing_else() {
        for json in ["1", "{}", "true", r#"["a", 1]"#, r#"[1, "a"]"#, "[[1], 2]", "[1, [2]]", "[-1]", "[1.5]", "[null]"]
        {
            assert!(parse(json).is_err(), "{json}");
        }
        assert!(parse("[4294967296]").unwrap_err().to_string().contains("no token id"));
        assert!(parse(&format!("[{}\"a\"]", "\"a\",".repeat(MAX_PROMPTS))).is_err());
    }
}
