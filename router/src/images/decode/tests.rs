use super::*;
use crate::images::goldens;
use proptest::prelude::*;

fn load(bytes: &[u8]) -> Result<Raster, ImageFault> {
    decode(bytes, read_header(bytes, &ImageLimits::default())?)
}

/// The header of `decode` says why.
const KNOWN_DIFFERENCES: &[&str] = &["grey-2-bit-transparent.png", "frame-inside-canvas.gif"];

#[test]
fn the_corpus_decodes_to_the_processors_pixels() {
    let cases = goldens::cases("decode.txt");
    assert!(cases.len() > 90);
    let differs = |words: &Vec<String>| match load(&goldens::corpus(&words[0])) {
        Ok(raster) => {
            let found =
                [raster.size.width.to_string(), raster.size.height.to_string(), goldens::checksum(&raster.pixels)];
            (found[..] != words[1..4]).then(|| format!("{}: {found:?}, not {:?}", words[0], &words[1..]))
        }
        Err(fault) => Some(format!("{}: {fault}", words[0])),
    };
    let wrong: Vec<String> =
        cases.iter().filter(|words| !KNOWN_DIFFERENCES.contains(&words[0].as_str())).filter_map(differs).collect();
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    let known = cases.iter().filter(|words| KNOWN_DIFFERENCES.contains(&words[0].as_str()));
    assert!(
        known.clone().all(|words| differs(words).is_some()),
        "a known difference is gone: say so in the module's header"
    );
    assert_eq!(known.count(), KNOWN_DIFFERENCES.len());
}

/// The header reader says `fault`, at once: a decoder that started on the pixels would take far longer.
#[track_caller]
fn refuse(bytes: &[u8], fault: &ImageFault) {
    let started = std::time::Instant::now();
    assert_eq!(read_header(bytes, &ImageLimits::default()).err().as_ref(), Some(fault));
    assert!(started.elapsed() < std::time::Duration::from_millis(200));
}

fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut data = b"IHDR".to_vec();
    data.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
    data.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    file.extend(&data);
    file.extend(crc32(&data).to_be_bytes());
    file.extend(b"\0\0\0\x01IDAT\0");
    file.extend(crc32(b"IDAT\0").to_be_bytes());
    file
}

fn crc32(data: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    };
    !data.iter().fold(!0, step)
}

fn gif_header(width: u16, height: u16) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    file.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255, 0x2c, 0, 0, 0, 0]);
    file.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    file.extend([0, 2, 1, 0, 0, 0x3b]);
    file
}

fn bmp_header(width: i32, height: i32) -> Vec<u8> {
    let mut file = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    file.extend([width.to_le_bytes(), height.to_le_bytes()].concat());
    file.extend([1, 0, 24, 0]);
    file.extend([0; 24]);
    file
}

/// `VP8X`: the extended header, whose canvas has 24 bits a side.
fn webp_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    file.extend(&(width - 1).to_le_bytes()[..3]);
    file.extend(&(height - 1).to_le_bytes()[..3]);
    file
}

/// `VP8L`: lossless, 14 bits a side.
fn webp_lossless_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f".to_vec();
    file.extend(((width - 1) | (height - 1) << 14).to_le_bytes());
    file.extend([0; 5]);
    file
}

/// The frame of a small JPEG says another size.
fn jpeg_header(name: &str, width: u16, height: u16) -> Vec<u8> {
    let mut file = goldens::corpus(name);
    let frame = file.windows(2).position(|pair| matches!(pair, [0xff, 0xc0 | 0xc2])).unwrap();
    file[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    file[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    file
}

#[test]
fn bombs_are_refused_by_their_headers() {
    let side = |width, height| ImageFault::Side { width, height, limit: 16_384 };
    let pixels = |width, height| ImageFault::TooManyPixels { width, height, limit: 64 << 20 };
    refuse(&png_header(30_000, 30_000), &side(30_000, 30_000));
    refuse(&png_header(16_384, 16_384), &pixels(16_384, 16_384));
    refuse(&png_header(1, 16_385), &side(1, 16_385));
    assert!(load(&png_header(0x7fff_ffff, 0x7fff_ffff)).is_err());
    refuse(&gif_header(65_535, 65_535), &side(65_535, 65_535));
    refuse(&gif_header(16_000, 16_000), &pixels(16_000, 16_000));
    refuse(&bmp_header(30_000, -30_000), &side(30_000, 30_000));
    refuse(&bmp_header(16_000, 16_000), &pixels(16_000, 16_000));
    refuse(&webp_lossless_header(16_383, 16_383), &pixels(16_383, 16_383));
    refuse(&jpeg_header("444-baseline-67x45-q90.jpg", 65_535, 65_535), &side(65_535, 65_535));
    refuse(&jpeg_header("444-progressive-67x45-q90.jpg", 16_000, 16_000), &pixels(16_000, 16_000));
}

#[test]
fn a_webp_canvas_bomb_is_refused_whatever_its_reader_thinks_of_it() {
    for side in [16_384, 65_000, 1 << 24] {
        assert!(load(&webp_header(side, side)).is_err(), "{side}");
    }
}

#[test]
fn headers_that_promise_more_than_they_hold_cost_little() {
    // Within the limits, so they reach the decoders; there is nothing behind them.
    for bytes in
        [png_header(8000, 8000), gif_header(8000, 8000), webp_header(8000, 8000), webp_lossless_header(8000, 8000)]
    {
        assert!(load(&bytes).is_err());
    }
    assert!(load(&jpeg_header("420-baseline-67x45-q90.jpg", 8000, 8000)).is_err());
}

#[test]
fn no_pixels_are_refused() {
    for (width, height) in [(0, 0), (0, 5), (5, 0)] {
        assert!(load(&png_header(width, height)).is_err());
        assert!(load(&bmp_header(width as i32, height as i32)).is_err());
        refuse(&gif_header(width as u16, height as u16), &ImageFault::Side { width, height, limit: 16_384 });
        assert!(load(&jpeg_header("444-baseline-67x45-q90.jpg", width as u16, height as u16)).is_err());
    }
}

#[test]
fn limits_are_exact() {
    let file = goldens::corpus("rgb.png");
    let header = |limits: &ImageLimits| read_header(&file, limits).map(|header| header.size);
    let size = ImageSize::new(43, 29);
    let limits = ImageLimits { max_side: 43, max_pixels: 43 * 29, ..ImageLimits::default() };
    assert_eq!(header(&limits), Ok(size));
    let narrow = ImageLimits { max_side: 42, ..limits.clone() };
    assert_eq!(header(&narrow), Err(ImageFault::Side { width: 43, height: 29, limit: 42 }));
    let few = ImageLimits { max_pixels: 43 * 29 - 1, ..limits };
    assert_eq!(header(&few), Err(ImageFault::TooManyPixels { width: 43, height: 29, limit: 43 * 29 - 1 }));
}

#[test]
fn a_file_that_ends_early_is_refused() {
    for name in [
        "420-baseline-67x45-q90.jpg",
        "420-progressive-67x45-q90.jpg",
        "rgb.png",
        "rgb-interlaced.png",
        "lossy.webp",
        "lossless.webp",
        "palette.gif",
        "24-bit.bmp",
    ] {
        let file = goldens::corpus(name);
        let whole = load(&file).ok().unwrap();
        for length in (0..file.len() - 2).step_by(file.len() / 40 + 1) {
            // The last bytes of some formats are padding; what is accepted must be the whole image.
            let cut = load(&file[..length]);
            assert!(cut.as_ref().map_or(true, |raster| *raster == whole), "{name} cut to {length} of {}", file.len());
            assert!(length > file.len() * 9 / 10 || cut.is_err(), "{name} cut to {length} of {}", file.len());
        }
    }
}

#[test]
fn the_format_is_read_from_the_bytes() {
    let refused = |bytes: &[u8]| match Format::of(bytes) {
        Err(ImageFault::Format { found }) => found,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(b"II*\0abc"), "TIFF files are not supported");
    assert_eq!(refused(b"MM\0*abc"), "TIFF files are not supported");
    assert_eq!(refused(b"\0\0\0\x18ftypheic"), "HEIC, AVIF and video files are not supported");
    assert_eq!(refused(b"<html>"), "this is a web page, not an image");
    assert_eq!(refused(b""), "the bytes are no image");
    assert_eq!(refused(b"hello"), "the bytes are no image");
    assert_eq!(Format::of(b"\xff\xd8\xff\xe0").unwrap(), Format::Jpeg);
    assert_eq!(Format::of(b"RIFF\0\0\0\0WEBPVP8 ").unwrap(), Format::WebP);
}

#[test]
fn a_decoder_that_panics_costs_its_image() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let outcome = guarded::<()>(Format::Gif, || panic!("inside a decoder"));
    std::panic::set_hook(quiet);
    assert_eq!(outcome, Err(ImageFault::Undecodable { format: "GIF" }));
}

#[test]
fn every_orientation_is_its_own_turn() {
    // 1 2      The eight ways to turn and mirror it, EXIF 1 to 8.
    // 3 4
    // 5 6
    let rows: [&[u8]; 8] = [
        &[1, 2, 3, 4, 5, 6],
        &[2, 1, 4, 3, 6, 5],
        &[6, 5, 4, 3, 2, 1],
        &[5, 6, 3, 4, 1, 2],
        &[1, 3, 5, 2, 4, 6],
        &[5, 3, 1, 6, 4, 2],
        &[6, 4, 2, 5, 3, 1],
        &[2, 4, 6, 1, 3, 5],
    ];
    for (number, expected) in (1..).zip(rows) {
        let pixels = (1..=6).flat_map(|level| [level; 3]).collect();
        let turned = orientation::Orientation::from_exif(number).apply(Raster { size: ImageSize::new(2, 3), pixels });
        let levels: Vec<u8> = turned.pixels.chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(levels, expected, "orientation {number}");
        let size = if number >= 5 { ImageSize::new(3, 2) } else { ImageSize::new(2, 3) };
        assert_eq!(turned.size, size);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = load(&bytes);
    }

    #[test]
    fn arbitrary_bytes_behind_a_magic_number_never_panic(
        magic in prop::sample::select(vec!["\u{89}", "GIF89a", "BM", "RIFF", "JPEG"]),
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let start: &[u8] = match magic {
            "GIF89a" => b"GIF89a",
            "BM" => b"BM",
            "RIFF" => b"RIFF\x90\x01\0\0WEBPVP8 ",
            "JPEG" => b"\xff\xd8\xff\xc0\0\x11\x08\0\x20\0\x20\x03",
            _ => b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x20\0\0\0\x20",
        };
        let _ = load(&[start, &bytes].concat());
    }

    #[test]
    fn damaged_files_never_panic_and_never_change_size(
        name in prop::sample::select(vec!["420-progressive-67x45-q90.jpg", "420-baseline-67x45-q90.jpg", "rgb-interlaced.png", "palette-alpha-table.png", "lossy-alpha.webp", "animated.webp", "animated.gif", "palette.bmp"]),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut file = goldens::corpus(name);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(raster) = load(&file) {
            prop_assert_eq!(raster.pixels.len() as u64, raster.size.pixels() * 3);
        }
    }
}
