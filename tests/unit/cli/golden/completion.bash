_skerry()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
	local word=${COMP_WORDS[1]} sub=${COMP_WORDS[2]:-} words=
	COMPREPLY=()
	case $prev in
	--output|-o)
		COMPREPLY=($(compgen -W "table json" -- "$cur"))
		return ;;
	--accept-dns)
		COMPREPLY=($(compgen -W "off serve host all" -- "$cur"))
		return ;;
	--role)
		COMPREPLY=($(compgen -W "viewer operator admin" -- "$cur"))
		return ;;
	--socket|--ca)
		COMPREPLY=($(compgen -f -- "$cur"))
		return ;;
	esac
	if [ "$COMP_CWORD" -eq 1 ]; then
		words="up set down status ping ip logout version node auth-key api-key user tailnet cluster backup audit completion help"
	else
		case $word in
		up) words="--lighthouse --auth-key --hostname --accept-dns --accept-routes --operator --tags --tailnet --ephemeral --force-register --output --socket --timeout --help" ;;
		set) words="--lighthouse --hostname --accept-dns --accept-routes --operator --tags --tailnet --output --socket --timeout --help" ;;
		down) words="--output --socket --timeout --help" ;;
		status) words="--output --no-peers --socket --timeout --help" ;;
		ping) words="--count --interval --size --ipv6 --output --socket --timeout --help" ;;
		ip) words="--ipv4 --ipv6 --output --socket --timeout --help" ;;
		logout) words="--output --socket --timeout --help" ;;
		version) words="--output --socket --timeout --help" ;;
		node)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="list get approve rename tag expire delete"
			else
				case $sub in
				list) words="--tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				get) words="--tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				approve) words="--user --tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				rename) words="--tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				tag) words="--clear --tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				expire) words="--in --never --tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				delete) words="--tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		auth-key)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="create list get revoke"
			else
				case $sub in
				create) words="--reusable --ephemeral --tags --expiry --user --needs-approval --no-pin --description --tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				list) words="--tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				get) words="--tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				revoke) words="--tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		api-key)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="create list get revoke"
			else
				case $sub in
				create) words="--role --expiry --system --description --tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				list) words="--system --tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				get) words="--system --tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				revoke) words="--system --tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		user)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="create list get delete"
			else
				case $sub in
				create) words="--role --display-name --tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				list) words="--tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				get) words="--tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				delete) words="--tailnet --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		tailnet)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="create list get delete"
			else
				case $sub in
				create) words="--domain --node-expiry --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				list) words="--local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				get) words="--local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				delete) words="--force --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		cluster)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="status token remove replace digest doctor transfer finalize-upgrade ca seal promote demote cancel"
			else
				case $sub in
				status) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				token) words="--expiry --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				remove) words="--no-fill --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				replace) words="--with --expiry --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				digest) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				doctor) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				transfer) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				finalize-upgrade) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				ca) words="--retire --force --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				seal) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				promote) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				demote) words="--no-fill --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				cancel) words="--output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		backup)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="create"
			else
				case $sub in
				create) words="--force --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		audit)
			if [ "$COMP_CWORD" -eq 2 ]; then
				words="list"
			else
				case $sub in
				list) words="--limit --system --tailnet --local --output --lighthouse --api-key --pin --ca --socket --timeout --help" ;;
				esac
			fi ;;
		completion) words="--timeout --help bash zsh" ;;
		help) words="--timeout --help up set down status ping ip logout version node auth-key api-key user tailnet cluster backup audit completion help" ;;
		esac
	fi
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _skerry skerry
