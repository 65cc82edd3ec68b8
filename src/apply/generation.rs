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

/// The policy that every guarded read model gets.
const READERS: &str = "projector_readers";

/// How full the pages of a table are made whose rows change: a batch may change every row of a page,
/// and where all new versions fit beside the old ones no index needs an entry.
const FILLFACTOR_OF_CHANGING_ROWS: u32 = 50;

/// From which size on a table's statistics are made before it serves, in bytes.
const ANALYZED_BYTES: u32 = 8 * 1024 * 1024;

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

    /// Gives a parent that has just been made its row level security and its grants. What an operator
    /// makes of them afterwards stays.
    pub fn protect_parent(&self) -> String {
        let parent = &self.parent;
        let mut sql = format!("alter table {parent} enable row level security;\n");
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
        sql + &self.create_policy()
    }

    /// The policy that shows rows to those who may read their tenant.
    pub fn create_policy(&self) -> String {
        let Some(tenant) = self.definition.tenant else { return String::new() };
        let (parent, tenant) = (&self.parent, self.name(tenant));
        format!(
            "create policy {READERS} on {parent} for select using (projector.can_read({tenant}));\n"
        )
    }

    /// Takes the policy away.
    pub fn drop_policy(&self) -> String {
        format!("drop policy if exists {READERS} on {};\n", self.parent)
    }

    /// Takes from a parent the indexes of ours that a generation, made by another definition, does
    /// not have.
    pub fn drop_indexes(&self, next: &QualifiedName) -> String {
        let (parent, next) = (literal(&self.parent.to_string()), literal(&next.to_string()));
        let prefix = literal(&self.index_prefix());
        format!(
            "do $do$ declare name text; begin
  for name in
    select own.indexrelid::regclass::text
    from pg_index own join pg_class c on c.oid = own.indexrelid
    where own.indrelid = {parent}::regclass and not own.indisprimary
      and starts_with(c.relname::text, {prefix}) and substr(c.relname, length({prefix}) + 1) ~ '^[0-9]+$'
      and not exists (select from pg_index other where other.indrelid = {next}::regclass
        and {same})
  loop execute 'drop index ' || name; end loop;
end $do$;
",
            same = same_index("own", "other"),
        )
    }

    /// Gives a parent without partitions the indexes that a generation has and it has not.
    pub fn create_indexes(&self, next: &QualifiedName) -> String {
        let (parent, next) = (literal(&self.parent.to_string()), literal(&next.to_string()));
        let (schema, prefix) =
            (literal(self.parent.schema.as_ref()), literal(&self.index_prefix()));
        format!(
            "do $do$ declare its record; number int := 0; begin
  for its in
    select own.indisunique as is_unique, {what} as what
    from pg_index own
    where own.indrelid = {next}::regclass and not own.indisprimary
      and not exists (select from pg_index other where other.indrelid = {parent}::regclass
        and {same})
    order by own.indexrelid
  loop
    loop
      number := number + 1;
      exit when to_regclass(format('%I.%I', {schema}, {prefix} || number)) is null;
    end loop;
    execute format('create %sindex %I on %s %s', case when its.is_unique then 'unique ' else '' end,
      {prefix} || number, {parent}, its.what);
  end loop;
end $do$;
",
            what = index_text("own"),
            same = same_index("own", "other"),
        )
    }

    /// Gives a generation the indexes and checks that a parent has and it has not: those that an
    /// operator made. Attaching would make the indexes while readers wait, and refuse without the
    /// checks. What does not fit the generation's columns is left out.
    pub fn adopt(&self, next: &QualifiedName) -> String {
        let (parent, next) = (literal(&self.parent.to_string()), literal(&next.to_string()));
        let prefix = literal(&self.index_prefix());
        format!(
            "do $do$ declare its record; begin
  for its in
    select format('create %sindex on %s %s', case when own.indisunique then 'unique ' else '' end,
        {next}, {what}) as sql
    from pg_index own join pg_class c on c.oid = own.indexrelid
    where own.indrelid = to_regclass({parent}) and not own.indisprimary
      and not (starts_with(c.relname::text, {prefix}) and substr(c.relname, length({prefix}) + 1) ~ '^[0-9]+$')
      and not exists (select from pg_index other where other.indrelid = {next}::regclass
        and {same})
    union all
    select format('alter table %s add constraint %I %s', {next}, own.conname, pg_get_constraintdef(own.oid))
    from pg_constraint own
    where own.conrelid = to_regclass({parent}) and own.contype = 'c'
      and not exists (select from pg_constraint other where other.conrelid = {next}::regclass
        and pg_get_constraintdef(other.oid) = pg_get_constraintdef(own.oid))
  loop
    begin
      execute its.sql;
    exception when undefined_column or undefined_function or datatype_mismatch then null;
    end;
  end loop;
end $do$;
",
            what = index_text("own"),
            same = same_index("own", "other"),
        )
    }

    /// What the names of our indexes on the parent begin with; a number follows.
    fn index_prefix(&self) -> String {
        format!("{}_i", self.parent.name.as_str())
    }

    /// Makes an empty generation that stands alone.
    pub fn create_generation(&self, table: &QualifiedName) -> String {
        let (columns, options) = (self.column_list(), self.options());
        let mut sql = format!("create table {table} (\n  {columns}\n){options};\n");
        self.index(&mut sql, table);
        sql + &hide(table)
    }

    /// Until it serves, a vacuum would only be in the way of its swap.
    fn options(&self) -> String {
        if self.definition.is_unique_per_event() {
            return " with (autovacuum_enabled = off)".to_owned();
        }
        format!(" with (autovacuum_enabled = off, fillfactor = {FILLFACTOR_OF_CHANGING_ROWS})")
    }

    /// Makes an empty table of the same columns that will never serve: without the log and without
    /// indexes but the key's.
    pub fn create_scratch(&self, table: &QualifiedName) -> String {
        let columns = self.column_list();
        format!("create unlogged table {table} (\n  {columns}\n);\n{}", hide(table))
    }

    /// Makes an empty table of the same columns for this session, called as the read model is.
    pub fn create_temporary(&self) -> String {
        format!("create temporary table {} (\n  {}\n);\n", self.parent.name, self.column_list())
    }

    /// Makes an empty table without any index, to be filled at once and then completed.
    pub fn create_bare(&self, table: &QualifiedName, logged: bool) -> String {
        let (create, options) = if logged {
            ("create table", self.options())
        } else {
            ("create unlogged table", String::new())
        };
        let columns = self.declarations().join(",\n  ");
        let mut sql = format!("{create} {table} (\n  {columns}\n){options};\n");
        for column in self.definition.key_columns() {
            sql +=
                &format!("alter table {table} alter column {} set not null;\n", self.name(column));
        }
        sql + &hide(table)
    }

    /// Gives a table that was made bare its key, and its other indexes where it is to serve.
    pub fn complete(&self, table: &QualifiedName, serves: bool) -> String {
        let mut sql = format!("alter table {table} add primary key ({});\n", self.key_names());
        if serves {
            self.index(&mut sql, table);
            sql += &analyze_if_large(table);
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
        and own.conname <> wanted.conname
    where own.conrelid = {next_text}::regclass and own.contype = 'c'
      and wanted.conrelid = {parent_text}::regclass and wanted.contype = 'c'
  loop
    execute format('alter table %s rename constraint %I to %I', {next_text}, its.name, its.wanted);
  end loop;
end $do$;
alter table {next} reset (autovacuum_enabled);
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

    /// The columns of a parent that go, among them those that are made anew because their declaration
    /// may have changed. `has` are the names that it has now.
    pub fn leaving_columns<'n>(
        &self,
        has: &'n [String],
        declared_before: &[(String, String)],
    ) -> Vec<&'n str> {
        let wanted = self.columns();
        let stays = |name: &str| {
            wanted.iter().any(|(n, declared)| {
                n.as_str() == name && is_declared(declared_before, name, declared)
            })
        };
        has.iter().map(String::as_str).filter(|name| !stays(name)).collect()
    }

    /// Brings the columns of a parent without partitions up to the definition: `has` are the names
    /// that it has now.
    pub fn alter_parent(&self, has: &[String], declared_before: &[(String, String)]) -> String {
        let mut sql = String::new();
        for name in self.leaving_columns(has, declared_before) {
            let Ok(name) = Ident::new(name) else { continue };
            sql += &format!("alter table {} drop column {name};\n", self.parent);
        }
        for (name, declared) in &self.columns() {
            let stays = has.iter().any(|it| it == name.as_str())
                && is_declared(declared_before, name.as_str(), declared);
            if !stays {
                sql += &format!("alter table {} add column {name} {declared};\n", self.parent);
            }
        }
        sql + &self.key_parent()
    }

    /// Gives a parent without partitions the definition's primary key, which went with a column of it
    /// or was another.
    fn key_parent(&self) -> String {
        let key = self.definition.key_columns();
        let key: Vec<_> = key.filter_map(|it| self.definition.columns.get(it)).collect();
        let list: Vec<_> = key.iter().map(|it| it.name.to_string()).collect();
        let names: Vec<_> = key.iter().map(|it| literal(it.name.as_str())).collect();
        let parent = &self.parent;
        let table = literal(&parent.to_string());
        format!(
            "do $do$ declare old record; begin
  select c.conname as name, array_agg(a.attname::text order by k.place) as columns into old
    from pg_constraint c, unnest(c.conkey) with ordinality k (number, place), pg_attribute a
    where c.conrelid = {table}::regclass and c.contype = 'p'
      and a.attrelid = c.conrelid and a.attnum = k.number
    group by c.conname;
  if old.columns is distinct from array[{names}] then
    if old.name is not null then
      execute format('alter table %s drop constraint %I', {table}, old.name);
    end if;
    alter table {parent} add primary key ({list});
  end if;
end $do$;
",
            names = names.join(", "),
            list = list.join(", "),
        )
    }

    fn column_list(&self) -> String {
        let mut lines = self.declarations();
        lines.push(format!("primary key ({})", self.key_names()));
        lines.join(",\n  ")
    }

    fn declarations(&self) -> Vec<String> {
        let columns = self.columns().into_iter();
        columns.map(|(name, declared)| format!("{name} {declared}")).collect()
    }

    fn key_names(&self) -> String {
        let key: Vec<_> = self.definition.key_columns().map(|it| self.name(it)).collect();
        key.join(", ")
    }

    fn index(&self, sql: &mut String, table: &QualifiedName) {
        for (number, index) in self.definition.indexes.iter().enumerate() {
            // named by number, so that making the parent twice makes its indexes once
            let name = format!("{}_i{}", table.name.as_str(), number + 1);
            let Ok(name) = Ident::new(name) else { continue };
            *sql += &format!("create index if not exists {name} on {table} ({});\n", index.columns);
        }
    }

    fn name(&self, column: usize) -> String {
        self.definition.columns.get(column).map_or_else(String::new, |it| it.name.to_string())
    }
}

fn is_declared(before: &[(String, String)], name: &str, declared: &str) -> bool {
    before.iter().any(|(n, d)| n == name && d == declared)
}

/// SQL: what an index is on and how, without its name and its table's: `USING btree (a, b DESC)`.
fn index_text(index: &str) -> String {
    // regclass prints the table as the definition does, so that no name can be taken for the word
    format!(
        "substr(pg_get_indexdef({index}.indexrelid), 1 + length(split_part(pg_get_indexdef({index}.indexrelid), \
         {index}.indrelid::regclass::text || ' USING ', 1)) + length({index}.indrelid::regclass::text || ' '))"
    )
}

/// SQL: whether two indexes of different tables are alike.
fn same_index(a: &str, b: &str) -> String {
    format!("{a}.indisunique = {b}.indisunique and {} = {}", index_text(a), index_text(b))
}

/// Readers come through the parent; the engine owns the table and is not bound by its rules.
fn hide(table: &QualifiedName) -> String {
    let mut sql = format!("alter table {table} enable row level security;\n");
    sql += &format!("revoke all on {table} from public;\n");
    for role in ["anon", "authenticated"] {
        sql.push_str(&if_role(role, &format!("revoke all on {table} from {role}")));
    }
    sql
}

/// Tells the planner of a table's rows, unless they are few: what is small when it begins to serve
/// grows, and plans that were made for an empty table read all of it for every batch. Of a table that
/// was never analyzed the planner thinks better.
fn analyze_if_large(table: &QualifiedName) -> String {
    format!(
        "do $do$ begin if {ANALYZED_BYTES} < pg_relation_size({}::regclass) then analyze {table}; end if; end $do$;\n",
        literal(&table.to_string())
    )
}

/// `statement`, run only where `role` exists.
fn if_role(role: &str, statement: &str) -> String {
    format!(
        "do $do$ begin if exists (select from pg_roles where rolname = {}) then {statement}; end if; end $do$;\n",
        literal(role)
    )
}
