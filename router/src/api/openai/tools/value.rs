//! Where a JSON value ends. Brackets are counted and strings are skipped; whether the value is valid is its reader's
//! business.

/// Follows one value, character by character.
#[derive(Clone, Debug)]
pub(super) struct ValueEnd {
    kind: Kind,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// What a value begins as.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Object,
    List,
    String,
    /// A number, `true`, `false` or `null`.
    Word,
}

/// What a character is to the value.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Inside,
    Last,
    /// Not part of it any more.
    Behind,
}

impl ValueEnd {
    /// The value that begins with this character.
    pub(super) fn begin(letter: char) -> Option<Self> {
        let kind = match letter {
            '{' => Kind::Object,
            '[' => Kind::List,
            '"' => Kind::String,
            '-' | '0'..='9' | 't' | 'f' | 'n' => Kind::Word,
            _ => return None,
        };
        let depth = usize::from(matches!(kind, Kind::Object | Kind::List));
        Some(Self { kind, depth, in_string: kind == Kind::String, escaped: false })
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads the next character.
    pub(super) fn read(&mut self, letter: char) -> Place {
        if self.in_string {
            return self.read_string(letter);
        }
        match letter {
            ',' | '}' | ']' if self.kind == Kind::Word => return Place::Behind,
            _ if self.kind == Kind::Word => return if letter.is_whitespace() { Place::Behind } else { Place::Inside },
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => self.depth -= 1,
            _ => {}
        }
        if self.depth == 0 { Place::Last } else { Place::Inside }
    }

    fn read_string(&mut self, letter: char) -> Place {
        if self.escaped {
            self.escaped = false;
        } else if letter == '\\' {
            self.escaped = true;
        } else if letter == '"' {
            self.in_string = false;
        }
        if !self.in_string && self.depth == 0 { Place::Last } else { Place::Inside }
    }
}
