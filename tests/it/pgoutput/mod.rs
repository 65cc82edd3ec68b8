//! The decoder and the assembler: on frames captured from real servers, on messages made up, and on
//! any bytes.

mod captured;
mod made_up;

use projector::assembler::Assembler;
use projector::ident::{Ident, QualifiedName};
use projector::pgoutput::ColumnNames;

fn table() -> QualifiedName {
    let ident = |text| Ident::new(text).unwrap();
    QualifiedName { schema: ident("public"), name: ident("events") }
}

fn assembler() -> Assembler {
    Assembler::new(table(), ColumnNames::default())
}
