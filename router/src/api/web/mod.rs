//! What people see in a browser: the playground, and the reference of the API. The pages are part of the binary, ask
//! nobody but this server, and say nothing about it that a stranger should not know, so they are there without a key.

mod docs;
mod page;
mod playground;

pub(super) use self::docs::{docs, docs_file, docs_folder};
pub(super) use self::playground::{__path_root, file, root};

/// Whether nobody needs a key to read this.
pub(super) fn is_page(path: &str) -> bool {
    matches!(path, "/docs" | "/api-doc/openapi.json") || path.starts_with("/playground/") || path.starts_with("/docs/")
}
