-- The database's own clock in Unix seconds. Not now(): that stands still inside a transaction.
CREATE OR REPLACE FUNCTION clock_seconds() RETURNS DOUBLE PRECISION LANGUAGE sql VOLATILE
AS 'SELECT extract(epoch FROM clock_timestamp())::double precision';
