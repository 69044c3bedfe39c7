//! A model's tokens as the grammar library wants them: the bytes of each, and how text is cut into them.

use std::fmt;
use std::sync::Arc;

use text_generation_scheduler::TokenId;
use toktrie::{TokRxInfo, TokTrie, TokenizerEnv};

use super::error::GrammarError;
use crate::detokenize::TokenTable;
use crate::prompt::PromptBuilder;

/// Cuts a text into tokens.
type Tokenize = Box<dyn Fn(&str) -> Vec<TokenId> + Send + Sync>;

/// A model's tokens, before the grammar library has seen them.
pub struct Vocabulary {
    /// The bytes of every token.
    pub table: Arc<TokenTable>,
    /// Cuts a text that holds no control token, without adding any.
    pub tokenize: Tokenize,
    /// Tokens that end an answer.
    pub end_tokens: Vec<TokenId>,
}

impl Vocabulary {
    /// The tokens that prompts of a model are made of. `end_tokens` end its answers.
    pub fn of(prompts: &PromptBuilder, end_tokens: Vec<TokenId>) -> Self {
        let encoder = prompts.clone();
        Self { table: prompts.table(), tokenize: Box::new(move |text| encoder.plain(text)), end_tokens }
    }
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, end_tokens, tokenize: _ } = self;
        formatter.debug_struct("Vocabulary").field("tokens", &table.len()).field("end_tokens", end_tokens).finish()
    }
}

/// The same with a tree over the bytes, which takes a second for a large vocabulary.
pub(super) struct Environment {
    trie: TokTrie,
    tokenize: Tokenize,
}

impl Vocabulary {
    /// Builds the tree. Blocks.
    pub(super) fn into_environment(self) -> Result<Environment, GrammarError> {
        let known = |id: &TokenId| (*id as usize) < self.table.len();
        let end_tokens: Vec<TokenId> = self.end_tokens.iter().copied().filter(known).collect();
        let Some(&first) = end_tokens.first() else {
            return Err(GrammarError::Unsupported("it has no token that ends an answer".to_owned()));
        };
        let words: Vec<Vec<u8>> = (0..self.table.len() as TokenId).map(|id| word(&self.table, id)).collect();
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, first), &words).with_eos_tokens(&end_tokens);
        Ok(Environment { trie, tokenize: self.tokenize })
    }
}

/// The bytes of a token. Special tokens are marked, so that no text of a grammar is ever taken for one.
fn word(table: &TokenTable, id: TokenId) -> Vec<u8> {
    let bytes = table.token_bytes(id).unwrap_or_default();
    let mark = table.is_special(id).then_some(TokTrie::SPECIAL_TOKEN_MARKER);
    mark.into_iter().chain(bytes.iter().copied()).collect()
}

impl TokenizerEnv for Environment {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        self.trie.tokenize_with_greedy_fallback(text, &self.tokenize)
    }
}
