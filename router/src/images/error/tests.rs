use super::*;

const LARGEST: u32 = u32::MAX;

fn every_fault() -> Vec<ImageFault> {
    vec![
        ImageFault::Url(InvalidImageUrl::Base64),
        ImageFault::Url(InvalidImageUrl::TooManyBytes { limit: u64::MAX }),
        ImageFault::Unavailable,
        ImageFault::FetchingOff,
        ImageFault::TooSlow,
        ImageFault::TooManyBytes { limit: u64::MAX },
        ImageFault::TooManyRequestBytes { limit: u64::MAX },
        ImageFault::Format { found: "HEIC, AVIF and video files are not supported" },
        ImageFault::Side { width: LARGEST, height: LARGEST, limit: LARGEST },
        ImageFault::TooManyPixels { width: LARGEST, height: LARGEST, limit: u64::MAX },
        ImageFault::TooManyRequestPixels { limit: u64::MAX },
        ImageFault::Undecodable { format: "JPEG" },
        ImageFault::Rejected(ImageRejected::AspectRatio { width: LARGEST, height: LARGEST }),
        ImageFault::Busy,
        ImageFault::Internal,
    ]
}

#[test]
fn every_text_is_short() {
    for fault in every_fault() {
        let text = fault.at(usize::MAX - 1, usize::MAX).to_string();
        assert!(text.len() <= 200, "{} characters: {text}", text.len());
    }
}

#[test]
fn an_image_is_named_only_among_several() {
    assert_eq!(ImageFault::Busy.at(0, 1).to_string(), "image: too many images are waiting to be decoded");
    assert_eq!(ImageFault::Busy.at(1, 3).to_string(), "image 2 of 3: too many images are waiting to be decoded");
}

#[test]
fn kinds_tell_an_api_what_happened() {
    let kind = |fault: ImageFault| fault.at(0, 1).kind();
    assert_eq!(kind(ImageFault::Unavailable), ImageErrorKind::Invalid);
    assert_eq!(kind(ImageFault::Url(InvalidImageUrl::TooManyBytes { limit: 1 })), ImageErrorKind::TooLarge);
    assert_eq!(kind(ImageFault::Side { width: 0, height: 0, limit: 1 }), ImageErrorKind::TooLarge);
    assert_eq!(kind(ImageFault::TooSlow), ImageErrorKind::TimedOut);
    assert_eq!(kind(ImageFault::Busy), ImageErrorKind::Overloaded);
    assert_eq!(kind(ImageFault::Internal), ImageErrorKind::Internal);
    assert_eq!(ImageError::TimedOut { seconds: 15 }.kind(), ImageErrorKind::TimedOut);
    assert_eq!(ImageError::TooMany { count: 17, limit: 16 }.kind(), ImageErrorKind::TooLarge);
}
