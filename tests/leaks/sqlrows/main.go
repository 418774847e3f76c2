// Rows that are not closed: each keeps its result and its connection, so every query opens a new one.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"time"

	_ "github.com/proullon/ramsql/driver"

	"oomwatch.example/leaks/rig"
)

func main() {
	db, err := sql.Open("ramsql", "orders")
	if err == nil {
		_, err = db.Exec("CREATE TABLE orders (id BIGSERIAL PRIMARY KEY, note TEXT)")
	}
	for n := 0; n < 200 && err == nil; n++ {
		_, err = db.Exec("INSERT INTO orders (note) VALUES (?)", fmt.Sprintf("order %d", n))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	server, stop := context.WithCancel(context.Background())
	defer stop()
	rig.Run(4*time.Millisecond, func(leak bool) {
		rows := latest(server, db)
		if rows != nil && !leak {
			rows.Close()
		}
	})
}

func latest(server context.Context, db *sql.DB) *sql.Rows {
	rows, err := db.QueryContext(server, "SELECT id, note FROM orders")
	if err != nil || !rows.Next() {
		return nil
	}
	return rows
}
