//! The routes from request to response body, over the real prompt builder and image loader and scripted tokens.

#![allow(clippy::needless_pass_by_value, reason = "a call with json!(…) reads better without &")]

mod any_body;
mod chat;
mod completions;
mod echoed_scores;
mod errors;
mod fake;
mod fixture;
mod guided;
mod native;
mod openapi;
mod response_streams;
mod responses;
mod server_facts;
mod small_routes;
mod streams;
mod tools;
mod web;
mod wire;
