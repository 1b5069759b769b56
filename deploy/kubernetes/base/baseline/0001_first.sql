-- Replace this file by your own migrations, numbered, and list them in kustomization.yaml.
CREATE TABLE notes (
  id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  body text NOT NULL
);
