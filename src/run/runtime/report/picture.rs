//! The model as boxes from top to bottom, as SVG that takes its colours from the page.
//!
//! Input: blocks, each behind those that it takes something from. Output: SVG. Invariants: every block up to
//! [`MOST_BLOCKS`] has a box, and every way between two of these is drawn: to the next box straight, past boxes along the side.

use std::fmt::Write;

use super::super::about::Block;
use super::html::{count, text};

/// Boxes that are drawn.
pub const MOST_BLOCKS: usize = 300;

/// Of a box: its left edge, width and height, and the space to the next.
const LEFT: f64 = 8.0;
const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 46.0;
const GAP: f64 = 22.0;

/// Between two ways along the side.
const LANE: f64 = 9.0;

/// Characters of a line of a box.
const NAME: usize = 24;
const SHAPE: usize = 30;

/// A way past boxes: from one, to another, on a lane.
#[derive(Debug, PartialEq)]
struct Detour {
    from: usize,
    to: usize,
    lane: usize,
}

/// The picture of these blocks; nothing without any.
pub fn picture(blocks: &[Block]) -> String {
    let blocks = &blocks[..blocks.len().min(MOST_BLOCKS)];
    if blocks.is_empty() {
        return String::new();
    }
    let detours = detours(blocks);
    let lanes = detours.iter().map(|detour| detour.lane + 1).max().unwrap_or(0);
    let width = LEFT + WIDTH + 12.0 + lanes as f64 * LANE + if lanes > 0 { 6.0 } else { 0.0 };
    let height = blocks.len() as f64 * (HEIGHT + GAP) - GAP + 4.0;
    let mut drawn = String::new();
    for (place, block) in blocks.iter().enumerate() {
        if place > 0 && block.from.contains(&(place - 1)) {
            let (x, start, end) = (LEFT + WIDTH / 2.0, top(place) - GAP, top(place));
            let _ = writeln!(drawn, "<path d=\"M{x} {start}V{:.1}\"/>{}", end - 5.0, tip(x, end, Tip::Down));
        }
    }
    for detour in &detours {
        drawn.push_str(&way(detour));
    }
    for (place, block) in blocks.iter().enumerate() {
        drawn.push_str(&shape(block, top(place)));
    }
    format!(
        "<svg class=\"model\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"the model's layers from input to output\">\n{drawn}</svg>\n"
    )
}

/// The upper edge of a box.
fn top(place: usize) -> f64 {
    2.0 + place as f64 * (HEIGHT + GAP)
}

/// The ways that pass boxes, each on the lowest lane that is free all along it.
fn detours(blocks: &[Block]) -> Vec<Detour> {
    let mut wanted: Vec<(usize, usize)> = Vec::new();
    for (to, block) in blocks.iter().enumerate() {
        wanted.extend(block.from.iter().filter(|from| **from + 1 < to).map(|from| (*from, to)));
    }
    // Short ones lie inside.
    wanted.sort_by_key(|(from, to)| (to - from, *from));
    wanted.dedup();
    let mut found: Vec<Detour> = Vec::new();
    for (from, to) in wanted {
        // Of one box there may be several ways on one lane; they are one line until they part.
        let crosses = |other: &&Detour| other.from < to && from < other.to && other.from != from;
        let taken: Vec<usize> = found.iter().filter(crosses).map(|other| other.lane).collect();
        let lane = (0..).find(|lane| !taken.contains(lane)).expect("some lane is free");
        found.push(Detour { from, to, lane });
    }
    found
}

/// A way past boxes, from the right edge of one to that of the other.
fn way(detour: &Detour) -> String {
    let edge = LEFT + WIDTH;
    let x = edge + 12.0 + detour.lane as f64 * LANE;
    let (start, end) = (top(detour.from) + HEIGHT * 0.68, top(detour.to) + HEIGHT * 0.32);
    format!(
        "<path d=\"M{edge} {start:.1}H{:.1}Q{x:.1} {start:.1} {x:.1} {:.1}V{:.1}Q{x:.1} {end:.1} {:.1} {end:.1}H{:.1}\"/>{}\n",
        x - 6.0,
        start + 6.0,
        end - 6.0,
        x - 6.0,
        edge + 5.0,
        tip(edge, end, Tip::Left)
    )
}

/// Where an arrow's tip points.
enum Tip {
    Down,
    Left,
}

fn tip(x: f64, y: f64, tip: Tip) -> String {
    let (far, wide) = (6.0, 3.5);
    match tip {
        Tip::Down => format!("<path class=\"tip\" d=\"M{x} {y}l-{wide} -{far}h{}z\"/>", 2.0 * wide),
        Tip::Left => format!("<path class=\"tip\" d=\"M{x} {y:.1}l{far} -{wide}v{}z\"/>", 2.0 * wide),
    }
}

/// One box: name and kind to the left, shape and parameters to the right.
fn shape(block: &Block, y: f64) -> String {
    let Block { name, kind, shape, parameters, .. } = block;
    let class = match kind.as_str() {
        "input" | "output" => "end",
        _ if *parameters > 0 => "learns",
        _ => "plain",
    };
    let (first, second) = if name.is_empty() { (kind, "") } else { (name, kind.as_str()) };
    let weights = match parameters {
        0 => String::new(),
        1 => "1 parameter".to_string(),
        many => format!("{} parameters", count(*many)),
    };
    let right = LEFT + WIDTH - 14.0;
    let mut drawn = format!(
        "<g><title>{}</title><rect class=\"{class}\" x=\"{LEFT}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\"/>",
        text(format!("{first} {second} {shape} {weights}"))
    );
    let (upper, lower) = (y + 19.5, y + 36.5);
    let both = first.chars().count() + shape.chars().count() > NAME + 16;
    let most = if both { NAME.min(40usize.saturating_sub(shape.chars().count().min(SHAPE))) } else { NAME };
    let middle = y + HEIGHT / 2.0 + 4.5;
    let name_place = if second.is_empty() { middle } else { upper };
    let shape_place = if weights.is_empty() { middle } else { upper };
    let _ = write!(
        drawn,
        "<text class=\"name\" x=\"{}\" y=\"{name_place}\">{}</text><text x=\"{right}\" y=\"{shape_place}\" text-anchor=\"end\">{}</text>",
        LEFT + 14.0,
        text(short(first, most)),
        text(short(shape, SHAPE))
    );
    if !second.is_empty() {
        let words = text(short(second, NAME));
        let _ = write!(drawn, "<text class=\"kind\" x=\"{}\" y=\"{lower}\">{words}</text>", LEFT + 14.0);
    }
    if !weights.is_empty() {
        let _ = write!(drawn, "<text x=\"{right}\" y=\"{lower}\" text-anchor=\"end\">{weights}</text>");
    }
    drawn.push_str("</g>\n");
    drawn
}

/// At most so many characters.
fn short(words: &str, most: usize) -> String {
    match words.chars().count() {
        count if count <= most => words.to_string(),
        _ => words.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(name: &str, from: &[usize]) -> Block {
        Block { name: name.into(), kind: "Linear".into(), from: from.to_vec(), ..Block::default() }
    }

    #[test]
    fn ways_past_boxes_share_no_lane_where_they_overlap() {
        let blocks = [block("x", &[]), block("a", &[0]), block("b", &[1, 0]), block("c", &[2]), block("d", &[3, 1, 0])];
        let detour = |from, to, lane| Detour { from, to, lane };
        assert_eq!(detours(&blocks), [detour(0, 2, 0), detour(1, 4, 1), detour(0, 4, 0)]);
        let overlapping =
            [block("x", &[]), block("a", &[0]), block("b", &[1]), block("c", &[2, 0]), block("d", &[3, 1])];
        assert_eq!(detours(&overlapping), [detour(0, 3, 0), detour(1, 4, 1)]);
    }

    #[test]
    fn names_are_inert_and_every_way_is_drawn() {
        let blocks = [block("<script>", &[]), block("a", &[0]), block("b", &[1, 0])];
        let drawn = picture(&blocks);
        assert!(!drawn.contains("<script") && drawn.contains("&lt;script&gt;"), "{drawn}");
        assert_eq!((drawn.matches("<rect").count(), drawn.matches("class=\"tip\"").count()), (3, 3));
        assert_eq!(picture(&[]), "");
    }
}
