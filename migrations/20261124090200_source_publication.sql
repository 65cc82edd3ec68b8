-- Which publication the checkpoints were taken through. One that was dropped and made anew while nobody
-- followed it leaves a gap in the log's stream: from version 18 on the server passes over the changes of a
-- publication that is missing, without an error.
alter table projector.sources add column if not exists publication oid;

insert into projector.schema_migrations (version, name)
values ('20261124090200', 'source_publication')
on conflict do nothing;
