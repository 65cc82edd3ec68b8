//! The tables of a projection: a partitioned parent that readers know, and one partition, the
//! current generation, that the engine writes.
//!
//! ```text
//! public.run_status            partitioned, RLS, grants, views: never replaced
//!   └─ projector.run_status_3  DEFAULT partition: generation 3
//! ```
//!
//! A new generation is filled beside the current one and takes its place in one short transaction;
//! the parent keeps its OID and with it everything that hangs on it. Generations live in schema
//! `projector`, which no API exposes.

use crate::apply::statement::POSITIONS;
use crate::definition::{Definition, Order};
use crate::ident::{Ident, IdentError, QualifiedName, literal};

/// The schema of generations and control tables.
pub const CONTROL_SCHEMA: &str = "projector";

/// How full the pages of a table are made whose rows change: a batch may change every row of a page,
/// and where all new versions fit beside the old ones no index needs an entry.
const FILLFACTOR_OF_CHANGING_ROWS: u32 = 50;

/// The tables of one projection.
#[derive(Clone, Debug)]
pub struct Tables<'a> {
    definition: &'a Definition,
    parent: QualifiedName,
}

impl<'a> Tables<'a> {
    /// For a definition whose read model lives in `schema`.
    pub fn new(definition: &'a Definition, schema: &Ident) -> Self {
        let parent = QualifiedName { schema: schema.clone(), name: definition.table.clone() };
        Self { definition, parent }
    }

    /// The table that readers know.
    pub fn parent(&self) -> &QualifiedName {
        &self.parent
    }

    /// The partition that holds a generation.
    ///
    /// # Errors
    /// When the table's name leaves no room for the generation's number.
    pub fn generation(&self, generation: i32) -> Result<QualifiedName, IdentError> {
        Ok(QualifiedName {
            schema: Ident::new(CONTROL_SCHEMA)?,
            name: Ident::new(format!("{}_{generation}", self.parent.name.as_str()))?,
        })
    }

    /// Makes the parent, where it is missing: table and primary key.
    pub fn create_parent(&self) -> String {
        let partition_key = self.name(self.definition.key_columns().next().unwrap_or_default());
        format!(
            "create table if not exists {} (\n  {}\n) partition by list ({partition_key});\n",
            self.parent,
            self.column_list(),
        )
    }

    /// Takes from a parent what hangs on columns that may change: its policy and the indexes that
    /// the definition before had.
    pub fn strip_parent(&self) -> String {
        let parent = &self.parent;
        let table = literal(&parent.to_string());
        let prefix = literal(&format!("{}_i", parent.name.as_str()));
        format!(
            "drop policy if exists projector_readers on {parent};
do $do$ declare name text; begin
  for name in
    select c.oid::regclass::text from pg_index i join pg_class c on c.oid = i.indexrelid
    where i.indrelid = {table}::regclass and not i.indisprimary
      and starts_with(c.relname::text, {prefix}) and substr(c.relname, length({prefix}) + 1) ~ '^[0-9]+$'
  loop execute 'drop index ' || name; end loop;
end $do$;
"
        )
    }

    /// Gives it to a parent that has the definition's columns: indexes, row level security, grants.
    pub fn dress_parent(&self) -> String {
        let mut sql = String::new();
        self.index(&mut sql, &self.parent);
        self.protect(&mut sql);
        sql
    }

    /// Makes an empty generation that stands alone.
    pub fn create_generation(&self, table: &QualifiedName) -> String {
        let fillfactor = if self.definition.is_unique_per_event() {
            String::new()
        } else {
            format!(" with (fillfactor = {FILLFACTOR_OF_CHANGING_ROWS})")
        };
        let mut sql = format!("create table {table} (\n  {}\n){fillfactor};\n", self.column_list());
        self.index(&mut sql, table);
        // readers come through the parent; the engine owns the table and is not bound by its rules
        sql += &format!("alter table {table} enable row level security;\n");
        sql += &format!("revoke all on {table} from public;\n");
        for role in ["anon", "authenticated"] {
            sql.push_str(&if_role(role, &format!("revoke all on {table} from {role}")));
        }
        sql
    }

    /// Takes the current generation out and drops it.
    pub fn detach(&self, current: &QualifiedName) -> String {
        format!("alter table {} detach partition {current};\ndrop table {current};\n", self.parent)
    }

    /// Lets a generation serve. The checks of its columns are named after its own table, and must be
    /// called as the parent's are.
    pub fn attach(&self, next: &QualifiedName) -> String {
        let parent = &self.parent;
        let (parent_text, next_text) = (literal(&parent.to_string()), literal(&next.to_string()));
        format!(
            "do $do$ declare its record; begin
  for its in select own.conname as name, wanted.conname as wanted
    from pg_constraint own join pg_constraint wanted
      on pg_get_constraintdef(own.oid) = pg_get_constraintdef(wanted.oid)
    where own.conrelid = {next_text}::regclass and own.contype = 'c'
      and wanted.conrelid = {parent_text}::regclass and wanted.contype = 'c'
  loop
    execute format('alter table %s rename constraint %I to %I', {next_text}, its.name, its.wanted);
  end loop;
end $do$;
alter table {parent} attach partition {next} default;
"
        )
    }

    /// Every column of the table with its declaration, hidden ones included.
    pub fn columns(&self) -> Vec<(Ident, String)> {
        let mut list: Vec<_> = self
            .definition
            .columns
            .iter()
            .map(|column| (column.name.clone(), column.declared.clone()))
            .collect();
        if self.definition.order == Order::Position {
            let name = Ident::new(POSITIONS).expect("the name is short and not empty");
            list.push((name, "bigint[]".to_owned()));
        }
        list
    }

    /// Brings the columns of a parent without partitions up to the definition: `has` are the names
    /// that it has now. Columns that remain are made anew when their declaration may have changed.
    pub fn alter_parent(&self, has: &[String], declared_before: &[(String, String)]) -> String {
        let mut sql = String::new();
        let wanted = self.columns();
        let same = |name: &str, declared: &str| {
            declared_before.iter().any(|(n, d)| n == name && d == declared)
        };
        for name in has {
            let kept = wanted.iter().any(|(n, d)| n.as_str() == name && same(name, d));
            if !kept {
                let name =
                    Ident::new(name.clone()).map_or_else(|_| String::new(), |it| it.to_string());
                sql += &format!("alter table {} drop column {name};\n", self.parent);
            }
        }
        for (name, declared) in &wanted {
            if !(has.iter().any(|it| it == name.as_str()) && same(name.as_str(), declared)) {
                sql += &format!("alter table {} add column {name} {declared};\n", self.parent);
            }
        }
        sql
    }

    fn column_list(&self) -> String {
        let mut lines: Vec<_> = self
            .columns()
            .into_iter()
            .map(|(name, declared)| format!("{name} {declared}"))
            .collect();
        let key: Vec<_> = self.definition.key_columns().map(|it| self.name(it)).collect();
        lines.push(format!("primary key ({})", key.join(", ")));
        lines.join(",\n  ")
    }

    fn index(&self, sql: &mut String, table: &QualifiedName) {
        for (number, index) in self.definition.indexes.iter().enumerate() {
            // named by number, so that making the parent twice makes its indexes once
            let name = format!("{}_i{}", table.name.as_str(), number + 1);
            let Ok(name) = Ident::new(name) else { continue };
            *sql += &format!("create index if not exists {name} on {table} ({});\n", index.columns);
        }
    }

    fn protect(&self, sql: &mut String) {
        let parent = &self.parent;
        *sql += &format!("alter table {parent} enable row level security;\n");
        for role in ["anon", "authenticated"] {
            sql.push_str(&if_role(
                role,
                &format!("revoke all on {parent} from {role}; grant select on {parent} to {role}"),
            ));
        }
        sql.push_str(&if_role(
            "service_role",
            &format!("grant select on {parent} to service_role"),
        ));
        let Some(tenant) = self.definition.tenant else { return };
        let tenant = self.name(tenant);
        *sql += &format!(
            "create policy projector_readers on {parent} for select using (projector.can_read({tenant}));\n"
        );
    }

    fn name(&self, column: usize) -> String {
        self.definition.columns.get(column).map_or_else(String::new, |it| it.name.to_string())
    }
}

/// `statement`, run only where `role` exists.
fn if_role(role: &str, statement: &str) -> String {
    format!(
        "do $do$ begin if exists (select from pg_roles where rolname = {}) then {statement}; end if; end $do$;\n",
        literal(role)
    )
}
