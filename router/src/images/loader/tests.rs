use std::collections::VecDeque;
use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::families::{self, Piece};
use crate::images::goldens;
use crate::images::{ImageErrorKind, InvalidImageUrl};

fn family() -> Arc<dyn VlmFamily> {
    let config = json!({"model_type": "fast_vlm", "image_token_index": 4});
    let processor = json!({
        "do_resize": true, "size": {"height": 192, "width": 192}, "resample": 3, "do_center_crop": false,
        "patch_size": 32, "num_additional_image_tokens": 0, "vision_feature_select_strategy": "full",
    });
    families::build(&config, &processor).unwrap().unwrap()
}

fn loader(limits: ImageLimits) -> ImageLoader {
    let fetch = FetchPolicy { allow: vec!["127.0.0.1".parse().unwrap()], ..FetchPolicy::default() };
    ImageLoader::new(family(), [1; 32], limits, fetch).unwrap()
}

fn inline(name: &str) -> ImageSource {
    ImageSource::Inline(goldens::corpus(name).into())
}

/// Serves each body once, then closes.
async fn serve(bodies: Vec<Vec<u8>>) -> ImageSource {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let bodies = Mutex::new(VecDeque::from(bodies));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(body) = bodies.lock().unwrap().pop_front() else { break };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        }
    });
    url.parse().unwrap()
}

fn fault(outcome: Result<Vec<LoadedImage>, ImageError>) -> ImageFault {
    match outcome.map(drop).expect_err("refused") {
        ImageError::Image { fault, .. } => fault,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn images_of_every_source_keep_their_order() {
    let remote = serve(vec![goldens::corpus("lossy.webp")]).await;
    let sources = vec![inline("rgb.png"), remote, inline("exif-6.jpg"), inline("animated.gif"), inline("24-bit.bmp")];
    let images = loader(ImageLimits::default()).load(sources).await.unwrap();
    let sizes: Vec<_> = images.iter().map(|image| (image.size.width, image.size.height)).collect();
    assert_eq!(sizes, [(43, 29), (53, 38), (40, 61), (37, 51), (35, 22)]);
    for image in &images {
        assert_eq!(image.layout.pieces, [Piece::Tokens(36)]);
        assert_eq!(image.views[0].size, ImageSize::new(192, 192));
        assert_eq!(image.views[0].pixels.len(), 192 * 192 * 3);
        assert!(!image.from_cache);
    }
    assert_eq!(images[0].timings.fetch, Duration::ZERO);
    assert!(images[1].timings.fetch > Duration::ZERO && images[1].timings.decode > Duration::ZERO);
}

/// The same bytes alone and in company are two images, each cached.
#[tokio::test]
async fn several_images_may_follow_other_rules() {
    let config = json!({
        "model_type": "llava_onevision", "image_token_index": 4, "vision_feature_select_strategy": "full",
        "vision_config": {"model_type": "siglip_vision_model", "image_size": 56, "patch_size": 14},
        "vision_aspect_ratio": "anyres_max_9", "image_grid_pinpoints": [[56, 56], [56, 112]],
    });
    let processor = json!({"size": {"height": 56, "width": 56}, "resample": 3, "image_mean": [0.5, 0.5, 0.5]});
    let family = families::build(&config, &processor).unwrap().unwrap();
    let loader = ImageLoader::new(family, [1; 32], ImageLimits::default(), FetchPolicy::default()).unwrap();
    let alone = loader.load(vec![inline("rgb.png")]).await.unwrap();
    let both = loader.load(vec![inline("rgb.png"), inline("rgb.png")]).await.unwrap();
    assert_eq!([&alone[0], &both[0], &both[1]].map(|image| image.layout.num_tokens()), [26, 17, 17]);
    assert_eq!([&alone[0], &both[0], &both[1]].map(|image| image.views.len()), [2, 1, 1]);
    assert!(alone[0].key != both[0].key && both[0].key == both[1].key);
    assert!(loader.load(vec![inline("rgb.png")]).await.unwrap()[0].from_cache);
    assert!(loader.load(vec![inline("rgb.png"); 3]).await.unwrap().iter().all(|image| image.from_cache));
}

/// The same bytes at low detail are another image, to a model that has such a form; to others they are the same.
#[tokio::test]
async fn low_detail_is_another_image() {
    let low = || WantedImage { source: inline("rgb.png"), detail: Detail::Low };
    let config = json!({"model_type": "internvl", "image_token_id": 4});
    let processor = json!({"do_resize": true, "size": {"height": 8, "width": 8}, "resample": 3, "image_seq_length": 5});
    let family = families::build(&config, &processor).unwrap().unwrap();
    let loader = ImageLoader::new(family, [1; 32], ImageLimits::default(), FetchPolicy::default()).unwrap();
    let full = loader.load(vec![inline("rgb.png")]).await.unwrap();
    let images = loader.load(vec![low(), inline("rgb.png").into(), low()]).await.unwrap();
    assert_eq!([&images[0], &images[1]].map(|image| image.layout.num_tokens()), [5, 35]);
    assert!(images[0].key == images[2].key && images[0].key != full[0].key && images[1].key == full[0].key);
    assert!(loader.load(vec![low()]).await.unwrap()[0].from_cache);
    let fixed = self::loader(ImageLimits::default());
    let first = fixed.load(vec![inline("rgb.png")]).await.unwrap();
    let second = fixed.load(vec![low()]).await.unwrap();
    assert!(second[0].from_cache && second[0].key == first[0].key);
}

#[tokio::test]
async fn no_images_are_no_error() {
    assert!(loader(ImageLimits::default()).load(Vec::<ImageSource>::new()).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_same_bytes_are_prepared_once_wherever_they_come_from() {
    let loader = loader(ImageLimits::default());
    let remote = serve(vec![goldens::corpus("rgb.png")]).await;
    let first = loader.load(vec![inline("rgb.png")]).await.unwrap();
    let second = loader.load(vec![remote, inline("rgb.png")]).await.unwrap();
    assert!(second.iter().all(|image| image.from_cache && image.key == first[0].key));
    assert!(Arc::ptr_eq(&first[0].views, &second[1].views));
    assert_eq!(second[1].timings, ImageTimings::default());
    assert!(second[0].timings.fetch > Duration::ZERO);
}

#[tokio::test]
async fn the_same_image_many_times_in_one_request_is_decoded_once() {
    let images = loader(ImageLimits::default()).load(vec![inline("rgb.png"); 8]).await.unwrap();
    assert_eq!(images.iter().filter(|image| !image.from_cache).count(), 1);
}

/// Whoever looked for the image in vain, and comes back from reading its header when another has prepared it.
#[tokio::test]
async fn an_image_prepared_while_its_header_was_read_is_not_decoded_again() {
    let loader = loader(ImageLimits::default());
    let mut late = std::pin::pin!(loader.load(vec![inline("rgb.png")]));
    assert!(futures::poll!(late.as_mut()).is_pending());
    let prompt = loader.load(vec![inline("rgb.png")]).await.unwrap();
    let late = late.await.unwrap();
    assert!(late[0].from_cache && Arc::ptr_eq(&prompt[0].views, &late[0].views));
}

#[tokio::test]
async fn a_url_is_fetched_again_and_its_new_content_seen() {
    let loader = loader(ImageLimits::default());
    let remote = serve(vec![goldens::corpus("rgb.png"), goldens::corpus("rgba.png")]).await;
    let first = loader.load(vec![remote.clone()]).await.unwrap();
    let second = loader.load(vec![remote]).await.unwrap();
    assert_ne!(first[0].key, second[0].key);
}

#[tokio::test]
async fn models_do_not_share_keys() {
    let other = ImageLoader::new(family(), [2; 32], ImageLimits::default(), FetchPolicy::default()).unwrap();
    let keys =
        [loader(ImageLimits::default()).load(vec![inline("rgb.png")]).await, other.load(vec![inline("rgb.png")]).await];
    let [first, second] = keys.map(|images| images.unwrap()[0].key);
    assert_ne!(first, second);
}

#[tokio::test]
async fn the_first_failure_names_its_image() {
    let bad = ImageSource::Inline(Bytes::from_static(b"no image"));
    let error = loader(ImageLimits::default()).load(vec![inline("rgb.png"), bad]).await.err().unwrap();
    assert_eq!(error.to_string(), "image 2 of 2: the bytes are no image, supported are PNG, JPEG, WebP, GIF and BMP");
    assert_eq!(error.kind(), ImageErrorKind::Invalid);
}

#[tokio::test]
async fn limits_of_a_request_are_checked_before_the_first_fetch() {
    let unreachable: ImageSource = "http://127.0.0.1:1/".parse().unwrap();
    let limits = ImageLimits { max_images: 2, max_bytes: 4000, max_request_bytes: 6000, ..ImageLimits::default() };
    let many = loader(limits.clone()).load(vec![unreachable.clone(); 3]).await;
    assert_eq!(many.err(), Some(ImageError::TooMany { count: 3, limit: 2 }));
    let large = ImageSource::Inline(vec![0; 4001].into());
    assert_eq!(
        fault(loader(limits.clone()).load(vec![unreachable.clone(), large]).await),
        ImageFault::TooManyBytes { limit: 4000 }
    );
    let halves = ImageSource::Inline(vec![0; 3001].into());
    assert_eq!(
        fault(loader(limits.clone()).load(vec![halves.clone(), halves]).await),
        ImageFault::TooManyRequestBytes { limit: 6000 }
    );
    let off = FetchPolicy { enabled: false, ..FetchPolicy::default() };
    let off = ImageLoader::new(family(), [1; 32], limits, off).unwrap();
    assert_eq!(fault(off.load(vec![inline("one-pixel.png"), unreachable]).await), ImageFault::FetchingOff);
}

#[tokio::test]
async fn pixels_are_counted_per_request() {
    let limits = ImageLimits { max_pixels: 43 * 29, max_request_pixels: 43 * 29 + 1, ..ImageLimits::default() };
    let loader = loader(limits);
    assert!(loader.load(vec![inline("rgb.png")]).await.is_ok());
    let two = loader.load(vec![inline("rgba.png"), inline("grey.png")]).await;
    assert_eq!(fault(two), ImageFault::TooManyRequestPixels { limit: 43 * 29 + 1 });
}

#[tokio::test]
async fn a_silent_server_ends_the_media_phase() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap()).parse().unwrap();
    let limits = ImageLimits { media_timeout: Duration::from_millis(100), ..ImageLimits::default() };
    let error = loader(limits).load(vec![inline("rgb.png"), url]).await.err();
    assert_eq!(error, Some(ImageError::TimedOut { seconds: 0 }));
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_download() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url: ImageSource = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let loader = loader(ImageLimits::default());
    let load = tokio::spawn(async move { loader.load(vec![url]).await.map(drop) });
    let (mut stream, _) = listener.accept().await.unwrap();
    load.abort();
    let mut request = Vec::new();
    let end = stream.read_to_end(&mut request);
    assert!(tokio::time::timeout(Duration::from_secs(1), end).await.is_ok(), "the connection is closed");
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once() {
    let limits = ImageLimits { decode_threads: 1, max_waiting_decodes: 1, ..ImageLimits::default() };
    let names = ["rgb.png", "rgba.png", "grey.png", "palette.png"];
    let loader = loader(limits);
    let places = [loader.0.pool.enter().ok().unwrap(), loader.0.pool.enter().ok().unwrap()];
    assert_eq!(fault(loader.load(names.map(inline).to_vec()).await), ImageFault::Busy);
    drop(places);
    assert!(loader.load(vec![inline("rgb.png"), inline("rgba.png")]).await.is_ok());
}

#[tokio::test]
async fn images_that_need_more_than_the_bound_wait_for_each_other() {
    let limits = ImageLimits { max_decoded_bytes_in_flight: 1, ..ImageLimits::default() };
    let names = ["rgb.png", "rgba.png", "grey.png", "exif-6.jpg", "lossy.webp"];
    assert_eq!(loader(limits).load(names.map(inline).to_vec()).await.unwrap().len(), 5);
}

#[tokio::test]
async fn errors_reach_the_client_in_its_words() {
    let url = "http://user@example.com/".parse::<ImageSource>().err();
    assert_eq!(url, Some(InvalidImageUrl::UserInfo));
    let truncated = ImageSource::Inline(goldens::corpus("rgb.png")[..200].to_vec().into());
    let error = loader(ImageLimits::default()).load(vec![truncated]).await.err().unwrap();
    assert_eq!(error.to_string(), "image: damaged, or a kind of PNG file that is not supported");
}
