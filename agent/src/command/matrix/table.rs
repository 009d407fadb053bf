//! The matrix for people: a table, or pairs where a table would be too wide.

use std::env;

use comfy_table::{Cell as Field, Color, ContentArrangement, LineStyle, Table, presets::NOTHING};

use super::words::{self, Reach};
use crate::reach::matrix::{Allowed, Cell, Matrix};

/// Columns of a terminal that does not say how many it has.
const USUAL_WIDTH: u16 = 120;

/// The matrix, as wide as the terminal is.
pub(super) fn text(matrix: &Matrix, only: Option<&Allowed>) -> String {
    let said = || env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let width = Table::new().width().or_else(said).unwrap_or(USUAL_WIDTH);
    text_within(matrix, only, width)
}

/// The matrix in so many columns; a line that is one pair may be longer.
pub(super) fn text_within(matrix: &Matrix, only: Option<&Allowed>, width: u16) -> String {
    let mut text = String::new();
    if let Some(only) = only {
        text += &format!("Of {only}:\n");
    }
    let square = square(matrix);
    let table = if fits(&square, width) { square } else { pairs(matrix) };
    for line in table.lines() {
        text += line.trim_end();
        text.push('\n');
    }
    for note in words::notes(matrix) {
        text += &format!("{note}\n");
    }
    text
}

fn fits(table: &Table, width: u16) -> bool {
    let columns = table.column_max_content_widths();
    // Each has a blank on either side.
    columns.iter().map(|column| column + 2).sum::<u16>() <= width
}

fn empty() -> Table {
    let mut table = Table::new();
    let below_header = LineStyle::none().fill('─').junction('─');
    table.load_style(NOTHING.header_separator(below_header));
    table.set_content_arrangement(ContentArrangement::Disabled);
    // Colour is stripped where it is not wanted, so here it is always there.
    table.enforce_styling();
    table
}

fn square(matrix: &Matrix) -> Table {
    let mut table = empty();
    let names = matrix.ends.iter().map(|end| end.name.replace('/', "/\n"));
    table.set_header(["from \\ to".to_owned()].into_iter().chain(names));
    for (from, end) in matrix.ends.iter().enumerate() {
        let cells = (0..matrix.ends.len()).map(|to| field(matrix.cell(from, to)));
        table.add_row([Field::new(&end.name)].into_iter().chain(cells));
    }
    table
}

fn pairs(matrix: &Matrix) -> Table {
    let mut table = empty();
    table.set_header(["from", "to", "allowed"]);
    for (from, source) in matrix.ends.iter().enumerate() {
        for (place, (cell, names)) in words::row(matrix, from).into_iter().enumerate() {
            let name = if place == 0 { source.name.as_str() } else { "" };
            table.add_row([Field::new(name), Field::new(names.join("\n")), field(cell)]);
        }
    }
    table
}

fn field(cell: &Cell) -> Field {
    let reach = words::reach(cell);
    let field = Field::new(words::text(cell).replace("; ", "\n"));
    match reach {
        Reach::Everything => field.fg(Color::Green),
        Reach::Some => field.fg(Color::Yellow),
        Reach::Nothing => field.fg(Color::Red),
        Reach::Itself | Reach::NoPolicy | Reach::NoFamily => field.fg(Color::DarkGrey),
    }
}
