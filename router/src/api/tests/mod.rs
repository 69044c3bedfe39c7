//! The routes from request to response body, over the real prompt builder and image loader and scripted tokens.

#![allow(clippy::needless_pass_by_value, reason = "a call with json!(…) reads better without &")]

mod any_body;
mod chat;
mod errors;
mod fake;
mod fixture;
mod native;
mod openapi;
mod server_facts;
mod streams;
mod web;
mod wire;
