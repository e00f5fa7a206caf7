package kstatus

import (
	"context"
	"fmt"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// argo runs a health check as Argo CD does: in its Lua engine, with no libraries but base and table, for a second at most, the
// object as the global `obj`. It answers a table of status and message.
func argo(object *unstructured.Unstructured, check string) (judgement, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		call := lua.P{Fn: state.NewFunction(open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(name)); err != nil {
			return judgement{}, err
		}
	}
	limit, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(limit)
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoString(check); err != nil {
		return judgement{}, err
	}
	answer, is := state.Get(-1).(*lua.LTable)
	if !is {
		return judgement{}, fmt.Errorf("the health check answers %s and no table", state.Get(-1).Type())
	}
	text := func(key string) string { return lua.LVAsString(answer.RawGetString(key)) }
	return judgement{text("status"), text("message")}, nil
}

// value is what an object of JSON is in Lua.
func value(state *lua.LState, of any) lua.LValue {
	switch of := of.(type) {
	case nil:
		return lua.LNil
	case bool:
		return lua.LBool(of)
	case int64:
		return lua.LNumber(of)
	case float64:
		return lua.LNumber(of)
	case string:
		return lua.LString(of)
	case []any:
		table := state.CreateTable(len(of), 0)
		for _, item := range of {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(of))
		for key, item := range of {
			table.RawSetString(key, value(state, item))
		}
		return table
	default:
		panic(fmt.Sprintf("no value of JSON: %T", of))
	}
}
