// A TC program of somebody else, on the frames that come to an interface; or how many there are.
//
//   tcx hold INTERFACE CODE   attaches one that returns CODE for each frame, by a link that goes with this process
//   tcx count INTERFACE       prints the number of programs
#include <linux/bpf.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TCX_INGRESS 46 // since Linux 6.6; older headers do not have it
#define PROGRAMS_MAX 64

static int bpf(int command, union bpf_attr *attributes) {
    int result = syscall(SYS_bpf, command, attributes, sizeof *attributes);
    if (result < 0) {
        perror("tcx: bpf");
        exit(1);
    }
    return result;
}

static void hold(unsigned interface, int code) {
    struct bpf_insn instructions[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = code},
        {.code = BPF_JMP | BPF_EXIT},
    };
    union bpf_attr program = {.prog_type = BPF_PROG_TYPE_SCHED_CLS, .insn_cnt = 2};
    program.insns = (uintptr_t)instructions;
    program.license = (uintptr_t)"GPL";
    strcpy(program.prog_name, "stranger");
    union bpf_attr link = {0};
    link.link_create.prog_fd = bpf(BPF_PROG_LOAD, &program);
    link.link_create.target_ifindex = interface;
    link.link_create.attach_type = TCX_INGRESS;
    bpf(BPF_LINK_CREATE, &link);
    puts("attached");
    fflush(stdout);
    pause();
}

static void count(unsigned interface) {
    uint32_t programs[PROGRAMS_MAX];
    union bpf_attr query = {0};
    query.query.target_fd = interface;
    query.query.attach_type = TCX_INGRESS;
    query.query.prog_ids = (uintptr_t)programs;
    query.query.prog_cnt = PROGRAMS_MAX;
    bpf(BPF_PROG_QUERY, &query);
    printf("%u\n", query.query.prog_cnt);
}

int main(int argc, char **argv) {
    unsigned interface = argc > 2 ? if_nametoindex(argv[2]) : 0;
    if (interface && argc == 4 && !strcmp(argv[1], "hold"))
        hold(interface, atoi(argv[3]));
    else if (interface && argc == 3 && !strcmp(argv[1], "count"))
        count(interface);
    else {
        fprintf(stderr, "tcx: hold INTERFACE CODE, or count INTERFACE\n");
        return 2;
    }
    return 0;
}
