//! What a parser finds in generated text.

/// A piece of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// Text for the reader.
    Text(String),
    /// A call of this function begins.
    Begin(String),
    /// More of the JSON text of its arguments.
    Arguments(String),
    /// The call is complete.
    End,
}

/// Events in order; neighbours that belong together are one.
#[derive(Debug, Default)]
pub(super) struct Events(pub(super) Vec<Event>);

impl Events {
    pub(super) fn text(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Event::Text(text)) => text.push_str(more),
            _ => self.0.push(Event::Text(more.to_owned())),
        }
    }

    pub(super) fn arguments(&mut self, more: &str) {
        match self.0.last_mut() {
            _ if more.is_empty() => {}
            Some(Event::Arguments(text)) => text.push_str(more),
            _ => self.0.push(Event::Arguments(more.to_owned())),
        }
    }

    pub(super) fn argument(&mut self, letter: char) {
        self.arguments(letter.encode_utf8(&mut [0; 4]));
    }

    pub(super) fn begin(&mut self, name: &str) {
        self.0.push(Event::Begin(name.to_owned()));
    }

    pub(super) fn end(&mut self) {
        self.0.push(Event::End);
    }
}

/// Reads a model's format of calls one character at a time, so that it cannot matter how the text came in pieces.
/// Text that only looked like a call comes out as text, whole.
pub(super) trait CallParser: Send {
    /// Reads the next character.
    fn read(&mut self, letter: char, events: &mut Events);
    /// The text is over.
    fn finish(&mut self, events: &mut Events);
}
