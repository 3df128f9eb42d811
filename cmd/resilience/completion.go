package main

import (
	"flag"
	"fmt"
	"strings"
)

// completion is the command completion.
func (p *program) completion(args []string) error {
	files, err := parse(p.flags("completion", "bash|zsh|fish"), args)
	if err != nil {
		return err
	}
	if len(files) != 1 {
		return misuse("completion: %d shells, must be bash, zsh, or fish", len(files))
	}
	flags := map[string]string{}
	names := func(set *flag.FlagSet) string {
		var all []string
		set.VisitAll(func(f *flag.Flag) { all = append(all, "-"+f.Name) })
		return strings.Join(all, " ")
	}
	var s setting
	simulate := flag.NewFlagSet("", flag.ContinueOnError)
	s.add(simulate)
	simulate.String("out", "", "")
	flags["simulate"] = names(simulate)
	var t tuning
	tune := flag.NewFlagSet("", flag.ContinueOnError)
	s.add(tune)
	t.add(tune)
	flags["tune"] = names(tune)
	flags["check"] = "-effective"
	incidents := strings.Join(incidentNames(), " ")
	switch files[0] {
	case "bash", "zsh":
		if files[0] == "zsh" {
			fmt.Fprintln(p.out, "autoload -U +X bashcompinit && bashcompinit")
		}
		fmt.Fprintf(p.out, `_resilience() {
	local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD-1]}
	COMPREPLY=()
	if ((COMP_CWORD == 1)); then
		COMPREPLY=($(compgen -W "check schema simulate tune completion help" -- "$word"))
	elif [[ $last == -incident ]]; then
		COMPREPLY=($(compgen -W "%s" -- "$word"))
	elif [[ $word == -* ]]; then
		case ${COMP_WORDS[1]} in
		check) COMPREPLY=($(compgen -W "%s" -- "$word")) ;;
		simulate) COMPREPLY=($(compgen -W "%s" -- "$word")) ;;
		tune) COMPREPLY=($(compgen -W "%s" -- "$word")) ;;
		esac
	elif [[ ${COMP_WORDS[1]} == completion ]]; then
		COMPREPLY=($(compgen -W "bash zsh fish" -- "$word"))
	else
		COMPREPLY=($(compgen -f -- "$word"))
	fi
}
complete -o filenames -F _resilience resilience
`, incidents, flags["check"], flags["simulate"], flags["tune"])
	case "fish":
		fmt.Fprintln(p.out, "complete -c resilience -n __fish_use_subcommand -f -a 'check schema simulate tune completion help'")
		for _, command := range []string{"check", "simulate", "tune"} {
			for _, name := range strings.Fields(flags[command]) {
				extra := ""
				if name == "-incident" {
					extra = " -x -a '" + incidents + "'"
				}
				fmt.Fprintf(p.out, "complete -c resilience -n '__fish_seen_subcommand_from %s' -o %s%s\n", command, name[1:], extra)
			}
		}
		fmt.Fprintln(p.out, "complete -c resilience -n '__fish_seen_subcommand_from completion' -f -a 'bash zsh fish'")
	default:
		return misuse("completion: %q, must be bash, zsh, or fish", files[0])
	}
	return nil
}
