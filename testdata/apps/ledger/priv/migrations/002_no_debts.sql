ALTER TABLE accounts ADD CONSTRAINT no_debts CHECK (balance >= 0)
