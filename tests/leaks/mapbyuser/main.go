// Sessions keyed by user, which nobody takes out again.
package main

import (
	"fmt"
	"time"

	"oomwatch.example/leaks/rig"
)

type session struct{ state []byte }

type sessions struct{ byUser map[string]*session }

func main() {
	all := sessions{byUser: map[string]*session{}}
	users := 0
	rig.Run(20*time.Millisecond, func(leak bool) {
		if leak {
			users++
		}
		all.remember(fmt.Sprintf("user-%d", users))
	})
}

func (s *sessions) remember(user string) {
	if s.byUser[user] == nil {
		found := &session{state: make([]byte, 128<<10)}
		rig.Touch(found.state)
		s.byUser[user] = found
	}
}
