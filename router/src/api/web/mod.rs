//! What people see in a browser: the playground. Its pages are part of the binary, ask nobody but this server, and say
//! nothing about it that a stranger should not know, so they are there without a key.

mod page;
mod playground;

pub(super) use self::playground::{file, root};

/// Where the pages lie that need no key.
pub(super) fn is_page(path: &str) -> bool {
    path.starts_with("/playground/")
}
