//! A model whose tokens are bytes, a picture, and requests in one line.

use std::io::Cursor;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Map, Value, json};
use text_generation_scheduler::TokenId;
use tower::ServiceExt;

use super::fake::{Fake, Handle, Script};
use crate::api::{ApiOptions, App, ModelInfo, RequestLimits, router};
use crate::families::{Filter, ImageLayout, ImageRejected, ImageSize, View, VlmFamily};
use crate::grammar::{GrammarCompiler, GrammarLimits, Vocabulary};
use crate::images::{FetchPolicy, ImageLimits, ImageLoader, install_crypto_provider};
use crate::prepared::PreparedModel;
use crate::prompt::PromptBuilder;
use crate::telemetry::{self, MetricLimits};

/// The token that stands for a quarter of a picture.
pub(super) const IMAGE: TokenId = 257;

/// Mistral's marker of calls, a special token.
pub(super) const CALLS: TokenId = 258;

const TEMPLATE: &str = "{% for message in messages %}[{{ message.role }}]\
    {% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
    {% if part.type == 'text' %}{{ part.text }}{% else %}<image>{% endif %}{% endfor %}{% endif %}{% endfor %}\
    {% if tools %}[tools]{% endif %}{% if add_generation_prompt %}[assistant]{% endif %}";

/// Every picture is one view and four tokens.
struct Quarters;

impl VlmFamily for Quarters {
    fn layout(&self, _: ImageSize) -> Result<ImageLayout, ImageRejected> {
        Ok(ImageLayout::plain(View::resized(ImageSize::new(8, 8), Filter::Bilinear), 4))
    }

    fn image_token(&self) -> TokenId {
        IMAGE
    }

    fn anchor(&self) -> TokenId {
        IMAGE
    }
}

/// An app over scripts, and what there is to change about it.
pub(super) struct Setup {
    pub(super) fake: Arc<Fake>,
    pub(super) limits: RequestLimits,
    pub(super) options: ApiOptions,
    pub(super) takes_images: bool,
    /// Instead of the usual one.
    pub(super) template: Option<&'static str>,
    pub(super) grammars: bool,
}

impl Setup {
    pub(super) fn playing(scripts: impl IntoIterator<Item = Script>) -> Self {
        Self {
            fake: Fake::playing(scripts),
            limits: RequestLimits::default(),
            options: ApiOptions::default(),
            takes_images: true,
            template: None,
            grammars: true,
        }
    }

    pub(super) fn router(&self) -> axum::Router {
        let family = self.takes_images.then(|| Arc::new(Quarters) as Arc<dyn VlmFamily>);
        let loader = |family| ImageLoader::new(family, [0; 32], ImageLimits::default(), FetchPolicy::default());
        install_crypto_provider();
        router(App {
            generator: Arc::new(Handle(Arc::clone(&self.fake))),
            prompts: self.prompts(family.clone()),
            grammars: self.grammars.then(grammars),
            images: family.map(|family| Arc::new(loader(family).unwrap())),
            model: ModelInfo { id: "org/bytes".to_owned(), ..ModelInfo::default() },
            limits: self.limits.clone(),
            options: self.options.clone(),
            metrics: metrics(),
        })
    }

    fn prompts(&self, family: Option<Arc<dyn VlmFamily>>) -> Arc<PromptBuilder> {
        match self.template {
            Some(template) => Arc::new(PromptBuilder::new(&model(template), family).unwrap()),
            None => prompts(family),
        }
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Response {
        self.router().oneshot(request).await.unwrap()
    }

    /// Posts JSON; the answer's status and body.
    pub(super) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        read(self.send(post(path, &body)).await).await
    }

    /// Posts JSON; the answer's status and the data of its events.
    pub(super) async fn events(&self, path: &str, body: Value) -> Vec<String> {
        let response = self.send(post(path, &body)).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let text = text(response).await;
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").expect(event).to_owned()).collect()
    }

    pub(super) async fn get(&self, path: &str) -> Response {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }
}

pub(super) fn post(path: &str, body: &Value) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.body(Body::from(body.to_string())).unwrap()
}

pub(super) async fn text(response: Response) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(super) async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/json");
    (status, serde_json::from_str(&text(response).await).unwrap())
}

/// A small picture as a data URI.
pub(super) fn picture() -> String {
    let pixels = image::RgbImage::from_pixel(6, 4, image::Rgb([200, 10, 10]));
    let mut png = Cursor::new(Vec::new());
    pixels.write_to(&mut png, image::ImageFormat::Png).unwrap();
    format!("data:image/png;base64,{}", STANDARD.encode(png.into_inner()))
}

/// The recorder is one for the process.
pub(super) fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let limits = MetricLimits { max_input_tokens: 2000, max_total_tokens: 3000 };
    HANDLE.get_or_init(|| telemetry::init_metrics(limits).unwrap()).clone()
}

/// Built once: loading a tokenizer takes longer than a test.
fn prompts(family: Option<Arc<dyn VlmFamily>>) -> Arc<PromptBuilder> {
    static BUILDERS: [OnceLock<Arc<PromptBuilder>>; 2] = [OnceLock::new(), OnceLock::new()];
    let builder = &BUILDERS[usize::from(family.is_some())];
    Arc::clone(builder.get_or_init(|| Arc::new(PromptBuilder::new(&model(TEMPLATE), family).unwrap())))
}

/// Begun anew in every test: the work belongs to the test's runtime.
fn grammars() -> Arc<GrammarCompiler> {
    let vocabulary = Vocabulary::of(&prompts(None), vec![256]);
    Arc::new(GrammarCompiler::new(vocabulary, GrammarLimits::default()))
}

fn model(template: &str) -> PreparedModel {
    let vocabulary: Map<String, Value> = (0..=255u8).map(|byte| (printable(byte).to_string(), byte.into())).collect();
    let special = |id: TokenId, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    let prepared = json!({
        "format": 1, "model_id": "org/bytes", "model_dir": ".", "model_type": "bytes",
        "config": {"model_type": "bytes"},
        "tokenizer": {
            "version": "1.0", "added_tokens": [special(256, "</s>"), special(IMAGE, "<image>"), special(CALLS, "[TOOL_CALLS]")],
            "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        },
        "special_tokens": {"eos_token": "</s>"}, "control_tokens": ["</s>", "<image>"], "media_tokens": ["<image>"],
        "chat_template": template, "eos_token_ids": [256], "identity": "00",
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), prepared.to_string()).unwrap();
    PreparedModel::read(file.path()).unwrap()
}

/// The character that stands for a byte in byte-level vocabularies: itself where it prints, the next free one of the
/// second Latin page where it does not.
fn printable(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !prints(other)).count() as u32;
    char::from_u32(256 + before).unwrap()
}
