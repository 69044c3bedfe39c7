//! The routes from request to response body, over the real prompt builder and image loader and scripted tokens.

mod chat;
mod errors;
mod fake;
mod fixture;
mod native;
mod server_facts;
mod streams;
