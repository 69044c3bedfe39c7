use super::*;

fn limits() -> ImageLimits {
    ImageLimits {
        max_bytes: 1000,
        max_pixels: 10,
        max_request_bytes: 3000,
        max_request_pixels: 10,
        max_source_bytes_in_flight: 4096,
        ..ImageLimits::default()
    }
}

#[test]
fn a_request_is_held_to_its_own_share() {
    let budget = SourceMemory::new(&limits()).budget(&limits());
    assert_eq!(budget.take_bytes(2000), Ok(()));
    assert_eq!(budget.take_bytes(1001), Err(ImageFault::TooManyRequestBytes { limit: 3000 }));
    assert_eq!(budget.take_bytes(1000), Ok(()));
    assert_eq!(budget.take_pixels(10), Ok(()));
    assert_eq!(budget.take_pixels(1), Err(ImageFault::TooManyRequestPixels { limit: 10 }));
}

#[test]
fn requests_share_memory_and_give_it_back() {
    let memory = SourceMemory::new(&limits());
    let (first, second) = (memory.budget(&limits()), memory.budget(&limits()));
    assert_eq!(first.take_bytes(2048), Ok(()));
    assert_eq!(first.take_bytes(100), Ok(()));
    assert_eq!(second.take_bytes(2000), Err(ImageFault::Busy));
    drop(first);
    assert_eq!(memory.0.available_permits(), 4);
    assert_eq!(second.take_bytes(800), Ok(()));
}

#[test]
fn one_image_within_its_own_limits_fits_whatever_the_request_may_have() {
    let narrow = ImageLimits { max_request_bytes: 10, max_request_pixels: 3, ..limits() };
    let budget = SourceMemory::new(&narrow).budget(&narrow);
    assert_eq!(budget.take_bytes(1000), Ok(()));
    assert_eq!(budget.take_pixels(10), Ok(()));
}
