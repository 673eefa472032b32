PRAGMA application_id = 1920168036;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE conversations (
        id TEXT PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
        created_at INTEGER NOT NULL,
        metadata BLOB NOT NULL
    );
INSERT INTO "conversations" VALUES('conv_1',1700000000,X'7B22746F706963223A22626F617473227D');
CREATE TABLE entries (
        id TEXT PRIMARY KEY,
        used REAL NOT NULL,
        bytes INTEGER NOT NULL
    );
INSERT INTO "entries" VALUES('conv_1',103.0,44);
INSERT INTO "entries" VALUES('resp_1',103.0,64);
INSERT INTO "entries" VALUES('resp_2',104.0,30);
CREATE TABLE items (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        conversation TEXT NOT NULL REFERENCES conversations ON DELETE CASCADE,
        id TEXT NOT NULL,
        json BLOB NOT NULL,
        UNIQUE (conversation, id)
    );
INSERT INTO "items" VALUES(1,'conv_1','in_1',X'7B226964223A22696E5F31227D');
INSERT INTO "items" VALUES(2,'conv_1','out_1',X'7B226964223A226F75745F31227D');
CREATE TABLE responses (
        id TEXT PRIMARY KEY REFERENCES entries ON DELETE CASCADE,
        created_at INTEGER NOT NULL,
        status TEXT NOT NULL,
        first BLOB NOT NULL,
        response BLOB,
        cues BLOB NOT NULL,
        items BLOB NOT NULL,
        previous TEXT,
        conversation TEXT
    );
INSERT INTO "responses" VALUES('resp_1',1700000001,'completed',X'7B226964223A22726573705F31227D',X'7B226964223A22726573705F31222C226F7574707574223A5B5D7D',X'5B22456E64225D',X'5B7B226964223A22696E5F31227D5D',NULL,'conv_1');
INSERT INTO "responses" VALUES('resp_2',1700000002,'in_progress',X'7B226964223A22726573705F32227D',NULL,X'5B5D',X'5B7B226964223A22696E5F32227D5D','resp_1',NULL);
CREATE INDEX by_use ON entries (used);
CREATE INDEX unfinished ON responses (id, conversation) WHERE response IS NULL;
CREATE VIEW held AS
        SELECT id FROM responses WHERE response IS NULL
        UNION SELECT conversation FROM responses WHERE response IS NULL AND conversation IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('items',2);
COMMIT;
