//! Tables of answers: JSON lines, text tables, NumPy archives.
//!
//! Input: named [`Cell`]s, a row at a time, the same names in each. Output: text or bytes. Invariant: JSON lines and text
//! tables are written row by row; an archive is written whole at the end, and NumPy reads it.

use std::io::{self, Write};

use rawzip::path::EntryPath;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A count or the number of a class.
    Whole(u64),
    /// A float.
    Single(f32),
    /// A word.
    Text(String),
    /// Several values of one kind.
    List(Vec<Cell>),
}

impl Cell {
    /// One value by itself, several as a list.
    pub fn of(mut values: Vec<Cell>) -> Self {
        if values.len() == 1 { values.remove(0) } else { Cell::List(values) }
    }

    /// The values in it.
    fn flat(&self) -> &[Cell] {
        match self {
            Cell::List(values) => values,
            Cell::Whole(_) | Cell::Single(_) | Cell::Text(_) => std::slice::from_ref(self),
        }
    }

    fn text(&self) -> String {
        match self {
            Cell::Whole(value) => value.to_string(),
            Cell::Single(value) => value.to_string(),
            Cell::Text(value) => value.clone(),
            Cell::List(values) => values.iter().map(Cell::text).collect::<Vec<_>>().join(" "),
        }
    }
}

impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cell::Whole(value) => serializer.serialize_u64(*value),
            Cell::Single(value) => serializer.serialize_f32(*value),
            Cell::Text(value) => serializer.serialize_str(value),
            Cell::List(values) => serializer.collect_seq(values),
        }
    }
}

/// Named cells in order.
struct Row<'r>(&'r [(String, Cell)]);

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, cell)| map.serialize_entry(name, cell))?;
        map.end()
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A JSON object a line
    Jsonl,
    /// A text table with a header; several values of one name become NAME.0, NAME.1, …
    Csv,
    /// A NumPy archive with an array for each name
    Npz,
}

/// Rows on their way out.
pub struct Rows<W: Write> {
    format: Format,
    out: W,
    /// The arrays of an archive so far.
    columns: Vec<(String, Vec<Cell>)>,
    count: usize,
}

impl<W: Write> Rows<W> {
    /// Rows in this format.
    pub fn new(format: Format, out: W) -> Self {
        Self { format, out, columns: Vec::new(), count: 0 }
    }

    /// Writes a row.
    pub fn add(&mut self, row: Vec<(String, Cell)>) -> io::Result<()> {
        match self.format {
            Format::Jsonl => {
                serde_json::to_writer(&mut self.out, &Row(&row))?;
                self.out.write_all(b"\n")?;
            }
            Format::Csv => {
                let mut table = csv::Writer::from_writer(&mut self.out);
                if self.count == 0 {
                    table.write_record(row.iter().flat_map(|(name, cell)| titles(name, cell)))?;
                }
                table.write_record(row.iter().flat_map(|(_, cell)| cell.flat().iter().map(Cell::text)))?;
                table.flush()?;
            }
            Format::Npz if self.count == 0 => {
                self.columns = row.into_iter().map(|(name, cell)| (name, vec![cell])).collect()
            }
            Format::Npz => {
                for ((_, column), (_, cell)) in self.columns.iter_mut().zip(row) {
                    column.push(cell);
                }
            }
        }
        self.count += 1;
        Ok(())
    }

    /// Writes what is left.
    pub fn finish(mut self) -> io::Result<()> {
        if self.format == Format::Npz {
            let arrays: Vec<(String, Vec<u8>)> =
                self.columns.iter().map(|(name, column)| (format!("{name}.npy"), array(column))).collect();
            archive(&arrays, &mut self.out)?;
        }
        self.out.flush()
    }
}

fn titles(name: &str, cell: &Cell) -> Vec<String> {
    match cell {
        Cell::List(values) => (0..values.len()).map(|place| format!("{name}.{place}")).collect(),
        Cell::Whole(_) | Cell::Single(_) | Cell::Text(_) => vec![name.to_string()],
    }
}

/// A NumPy array of version 1, with the rows first.
fn array(column: &[Cell]) -> Vec<u8> {
    let cells: Vec<&Cell> = column.iter().flat_map(Cell::flat).collect();
    let longest = cells.iter().map(|cell| cell.text().chars().count()).max().unwrap_or(0).max(1);
    let mut data = Vec::new();
    let kind = match cells.first() {
        Some(Cell::Whole(_)) => "<i8".to_string(),
        Some(Cell::Single(_)) => "<f4".to_string(),
        Some(Cell::Text(_) | Cell::List(_)) | None => format!("<U{longest}"),
    };
    for cell in cells {
        match cell {
            Cell::Whole(value) => data.extend((*value as i64).to_le_bytes()),
            Cell::Single(value) => data.extend(value.to_le_bytes()),
            Cell::Text(_) | Cell::List(_) => {
                let text = cell.text();
                let letters = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(longest);
                data.extend(letters.flat_map(u32::to_le_bytes));
            }
        }
    }
    let shape = match column.first() {
        Some(Cell::List(values)) => format!("({}, {})", column.len(), values.len()),
        Some(Cell::Whole(_) | Cell::Single(_) | Cell::Text(_)) | None => format!("({},)", column.len()),
    };
    let mut header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    // The data begin at a multiple of 64 bytes.
    let padding = (10 + header.len() + 1).next_multiple_of(64) - (10 + header.len() + 1);
    header.push_str(&" ".repeat(padding));
    header.push('\n');
    [b"\x93NUMPY\x01\x00".as_slice(), &(header.len() as u16).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// Writes arrays into a ZIP archive, uncompressed, as `numpy.savez` does.
fn archive(arrays: &[(String, Vec<u8>)], out: &mut impl Write) -> io::Result<()> {
    let mut archive = rawzip::ZipArchiveWriter::new(out);
    for (name, array) in arrays {
        let (mut entry, config) =
            archive.new_file(EntryPath::verbatim(name.as_bytes())).start().map_err(io::Error::other)?;
        let mut writer = config.wrap(&mut entry);
        writer.write_all(array)?;
        let (_, descriptor) = writer.finish().map_err(io::Error::other)?;
        entry.finish(descriptor).map_err(io::Error::other)?;
    }
    archive.finish().map(|_| ()).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(format: Format) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rows = Rows::new(format, &mut bytes);
        for (row, word) in [(1, "käse"), (2, "a, b")] {
            let list = Cell::List(vec![Cell::Single(0.1), Cell::Single(row as f32)]);
            let cells = [("row", Cell::Whole(row)), ("class", Cell::Text(word.into())), ("y", list)];
            rows.add(cells.map(|(name, cell)| (name.to_string(), cell)).into()).expect("written");
        }
        rows.finish().expect("written");
        bytes
    }

    #[test]
    fn json_lines_have_shortest_floats_and_the_order_of_the_cells() {
        let text = String::from_utf8(written(Format::Jsonl)).expect("text");
        assert_eq!(text.lines().next(), Some(r#"{"row":1,"class":"käse","y":[0.1,1.0]}"#));
    }

    #[test]
    fn text_tables_have_a_header_and_quotes_where_needed() {
        let text = String::from_utf8(written(Format::Csv)).expect("text");
        assert_eq!(text, "row,class,y.0,y.1\n1,käse,0.1,1\n2,\"a, b\",0.1,2\n");
    }

    #[test]
    fn archives_are_read_back() {
        let bytes = written(Format::Npz);
        let archive = rawzip::ZipArchive::from_slice(&bytes).expect("an archive");
        let mut arrays = archive.entries().map(|entry| {
            let entry = entry.expect("an entry");
            let array = archive.get_entry(entry.wayfinder()).expect("there").data().to_vec();
            (String::from_utf8_lossy(entry.file_path().as_bytes()).into_owned(), array)
        });
        let mut next = |name: &str, head: &str| {
            let (found, array) = arrays.next().expect("an array");
            assert_eq!(found, name);
            let text = String::from_utf8_lossy(&array[10..128]).into_owned();
            assert!(text.starts_with(head), "{text}");
            array[128..].to_vec()
        };
        let row = next("row.npy", "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }");
        assert_eq!(row, [1i64, 2].map(i64::to_le_bytes).concat());
        next("class.npy", "{'descr': '<U4', 'fortran_order': False, 'shape': (2,), }");
        let y = next("y.npy", "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }");
        assert_eq!(y, [0.1f32, 1.0, 0.1, 2.0].map(f32::to_le_bytes).concat());
    }
}
