/** The jar as users get it, with the programs that they use it with. */
package nbd.interop;
