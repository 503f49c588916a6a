//! Decoding PNG and JPEG files.
//!
//! Input: the bytes of a file. Output: samples as they are stored, then bytes of grey or of red, green and blue, resized
//! if asked for. Invariant: nothing is decoded of a picture whose head claims more than [`MOST_PIXELS`].
//! The decoders are `png` and `zune-jpeg`; colour profiles and rotations that a file notes are not applied.

use std::io::Cursor;

use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;

/// Pixels of a picture: 8192 × 8192.
pub(super) const MOST_PIXELS: u64 = 1 << 26;

/// Bytes that the PNG decoder may take for what it keeps beside the pixels.
const MOST_EXTRA: usize = 512 << 20;

/// Bytes a pixel that resizing takes beside the samples as they are stored: one plane in 16 bits, and its rows as floats.
const RESIZED: u64 = 6;

/// Bytes of a sample that the JPEG decoder may keep until all passes of a progressive file are read.
const COEFFICIENTS: u64 = 2;

/// Relative luminance of red, green and blue: BT.709's primaries at its white point, D65.
const LUMINANCE: [f32; 3] = [0.21264784, 0.7151792, 0.07217304];

/// Why a file gives no picture.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Height and width are more than is decoded.
    TooLarge(u64, u64),
    /// Decoding takes so many bytes, more than it may.
    NoRoom(u64),
    /// What the decoder says.
    Damaged(String),
}

/// A decoded picture.
#[derive(Debug)]
pub(super) struct Picture {
    pub height: usize,
    pub width: usize,
    /// Samples of a pixel: grey, grey and alpha, three colours, three colours and alpha.
    samples: usize,
    /// Two bytes a sample, the higher first, in place of one.
    wide: bool,
    /// Row by row, the samples of a pixel side by side.
    bytes: Vec<u8>,
}

impl Picture {
    /// Decodes a file by its first bytes, within `most` bytes; its name says nothing.
    pub(super) fn decode(bytes: &[u8], most: u64) -> Result<Self, Trouble> {
        match bytes {
            [0x89, b'P', b'N', b'G', ..] => Self::png(bytes, most),
            [0xff, 0xd8, 0xff, ..] => Self::jpeg(bytes, most),
            _ => Err(Trouble::Damaged("it begins neither like a PNG nor like a JPEG file".to_string())),
        }
    }

    fn png(bytes: &[u8], most: u64) -> Result<Self, Trouble> {
        let damaged = |error: png::DecodingError| Trouble::Damaged(error.to_string());
        let mut decoder = {
            let extra = usize::try_from(most).unwrap_or(usize::MAX).min(MOST_EXTRA);
            png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: extra })
        };
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        // Palettes become colours, and one, two and four bits become eight.
        decoder.set_transformations(png::Transformations::EXPAND);
        let (width, height) = decoder.read_header_info().map_err(damaged)?.size();
        bounded(height.into(), width.into())?;
        let mut reader = decoder.read_info().map_err(damaged)?;
        let (color, depth) = reader.output_color_type();
        let size = reader.output_buffer_size();
        let size = size.ok_or_else(|| Trouble::Damaged("it is too large".to_string()))?;
        fits(size as u64 + u64::from(width) * u64::from(height) * RESIZED, most)?;
        let mut bytes = vec![0; size];
        reader.next_frame(&mut bytes).map_err(damaged)?;
        let wide = depth == png::BitDepth::Sixteen;
        Ok(Self { height: height as usize, width: width as usize, samples: color.samples(), wide, bytes })
    }

    fn jpeg(bytes: &[u8], most: u64) -> Result<Self, Trouble> {
        let damaged = |error: zune_jpeg::errors::DecodeErrors| Trouble::Damaged(error.to_string());
        let largest = usize::from(u16::MAX);
        let options = DecoderOptions::default().set_strict_mode(false).set_max_width(largest).set_max_height(largest);
        let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(damaged)?;
        let headless = || Trouble::Damaged("its head is not complete".to_string());
        let (width, height) = decoder.dimensions().ok_or_else(headless)?;
        bounded(height as u64, width as u64)?;
        let (color, samples) = match decoder.input_colorspace().ok_or_else(headless)? {
            ColorSpace::Luma => (ColorSpace::Luma, 1),
            _ => (ColorSpace::RGB, 3),
        };
        let pixels = height as u64 * width as u64;
        fits(pixels * (samples as u64 * (1 + COEFFICIENTS) + RESIZED), most)?;
        decoder.set_options(options.jpeg_set_out_colorspace(color));
        let bytes = decoder.decode().map_err(damaged)?;
        match bytes.len() == height * width * samples {
            true => Ok(Self { height, width, samples, wide: false, bytes }),
            false => Err(Trouble::Damaged("it holds another number of pixels than its head claims".to_string())),
        }
    }

    /// Appends one plane of grey, or three of red, green and blue.
    pub(super) fn append_planes(&self, channels: usize, height: usize, width: usize, planes: &mut Vec<u8>) {
        let own = if self.samples < 3 { 1 } else { 3 };
        let own: Vec<Vec<u16>> = (0..own).map(|sample| self.plane(sample, height, width)).collect();
        match (channels, own.as_slice()) {
            (1, [red, green, blue]) => {
                let colors = red.iter().zip(green).zip(blue);
                planes.extend(colors.map(|((red, green), blue)| self.grey([*red, *green, *blue])));
            }
            (_, [grey]) => {
                (0..channels).for_each(|_| planes.extend(grey.iter().map(|value| self.byte(*value))));
            }
            (_, colors) => planes.extend(colors.iter().flatten().map(|value| self.byte(*value))),
        }
    }

    /// The samples of this number in rows of another size, each the mean of those around it (a triangle as wide as two
    /// pixels of the coarser picture), columns before rows.
    fn plane(&self, sample: usize, height: usize, width: usize) -> Vec<u16> {
        let places = (sample..self.height * self.width * self.samples).step_by(self.samples);
        let stored: Vec<u16> = match self.wide {
            true => {
                places.map(|place| u16::from_be_bytes([self.bytes[2 * place], self.bytes[2 * place + 1]])).collect()
            }
            false => places.map(|place| u16::from(self.bytes[place])).collect(),
        };
        if (height, width) == (self.height, self.width) {
            return stored;
        }
        let mut rows = Vec::with_capacity(height * self.width);
        for (first, weights) in triangles(self.height, height) {
            rows.extend((0..self.width).map(|column| {
                let summands = weights.iter().enumerate();
                summands.fold(0.0, |sum, (i, w)| sum + f32::from(stored[(first + i) * self.width + column]) * w)
            }));
        }
        let columns = triangles(self.width, width);
        let most = f32::from(self.most());
        let mut plane = Vec::with_capacity(height * width);
        for row in rows.chunks_exact(self.width) {
            plane.extend(columns.iter().map(|(first, weights)| {
                let summands = row[*first..].iter().zip(weights);
                summands.fold(0.0, |sum, (value, w)| sum + value * w).clamp(0.0, most).round() as u16
            }));
        }
        plane
    }

    /// The sample of a white pixel.
    fn most(&self) -> u16 {
        if self.wide { u16::MAX } else { u16::from(u8::MAX) }
    }

    /// A sample in eight bits, rounded: 65535 = 257 · 255.
    fn byte(&self, value: u16) -> u8 {
        if self.wide { ((u32::from(value) + 128) / 257) as u8 } else { value as u8 }
    }

    fn grey(&self, color: [u16; 3]) -> u8 {
        let unit = 1.0 / f32::from(self.most());
        let luminance = color.iter().zip(LUMINANCE).fold(0.0, |sum, (value, k)| sum + f32::from(*value) * unit * k);
        (luminance * f32::from(u8::MAX)).round() as u8
    }
}

fn fits(bytes: u64, most: u64) -> Result<(), Trouble> {
    if bytes > most { Err(Trouble::NoRoom(bytes)) } else { Ok(()) }
}

fn bounded(height: u64, width: u64) -> Result<(), Trouble> {
    if height * width > MOST_PIXELS { Err(Trouble::TooLarge(height, width)) } else { Ok(()) }
}

/// For each place of the new length, the first old one that it reads and the weights from there, of sum 1.
fn triangles(old: usize, new: usize) -> Vec<(usize, Vec<f32>)> {
    let ratio = old as f32 / new as f32;
    let reach = ratio.max(1.0);
    let one = |place: usize| {
        let center = (place as f32 + 0.5) * ratio;
        let first = ((center - reach).floor().max(0.0) as usize).min(old - 1);
        let end = ((center + reach).ceil() as usize).clamp(first + 1, old);
        let weight = |i: usize| (1.0 - ((i as f32 - (center - 0.5)) / reach).abs()).max(0.0);
        let weights: Vec<f32> = (first..end).map(weight).collect();
        let sum = weights.iter().fold(0.0, |sum, w| sum + w);
        (first, weights.into_iter().map(|w| w / sum).collect())
    };
    (0..new).map(one).collect()
}
